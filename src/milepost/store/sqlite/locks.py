"""Replica locks: how one process knows that another is gone, at once.

A replica holds an OS lock on its file for as long as its process lives. The kernel drops the lock when
the process dies, however it dies; a stopped (SIGSTOP) process keeps it, so there only its lease tells.
A probe takes the lock shared, so that probes never meet each other as holders.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from enum import Enum
from pathlib import Path

from milepost.core.errors import ConfigurationError, StoreError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
_TRIES, _PAUSE = 100, 0.01
"""How often, and with which pause in seconds, to try for a lock that a passing probe may hold."""


class Holder(Enum):
    """What a lock file says about its owner."""

    HERE = "this process"
    ALIVE = "another process"
    GONE = "nobody any more"
    UNKNOWN = "there never was a lock"


class LockFiles:
    """The lock files of one store, in a directory beside it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._held: dict[str, int] = {}

    def hold(self, name: str) -> bool:
        """Take the lock `name` for this process; False if it had it already. Raises StoreError if another has it."""
        if _NAME.match(name) is None:
            raise ConfigurationError(f"replica id {name!r} can't be used: at most 100 letters, digits, '.', '_', '-'")
        if name in self._held:
            return False
        for _ in range(_TRIES):
            if self.try_hold(name):
                return True
            time.sleep(_PAUSE)
        raise StoreError(f"another process is already the replica {name!r}; give this one another id")

    def try_hold(self, name: str) -> bool:
        """Take the lock if it is free; True if it is ours now."""
        if name in self._held:
            return True
        self._directory.mkdir(mode=0o700, exist_ok=True)
        path = self._directory / name
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if _lock(handle, fcntl.LOCK_EX) and _still_there(handle, path):
            self._held[name] = handle
            return True
        os.close(handle)
        return False

    def release(self, name: str, *, keep_file: bool = False) -> None:
        """Give the lock back and, by default, remove its file. Idempotent."""
        handle = self._held.pop(name, None)
        if handle is not None:
            if not keep_file:
                (self._directory / name).unlink(missing_ok=True)
            os.close(handle)

    def release_all(self) -> None:
        for name in list(self._held):
            self.release(name)

    def holder(self, name: str) -> Holder:
        """Who holds the lock `name` right now."""
        if name in self._held:
            return Holder.HERE
        if _NAME.match(name) is None:
            return Holder.UNKNOWN
        try:
            handle = os.open(self._directory / name, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return Holder.UNKNOWN
        try:
            return Holder.GONE if _lock(handle, fcntl.LOCK_SH) else Holder.ALIVE
        finally:
            os.close(handle)

    def bury(self, name: str) -> None:
        """Remove the file of an owner that is gone, unless somebody took the name again meanwhile."""
        if self.try_hold(name):
            self.release(name)


def _lock(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _still_there(handle: int, path: Path) -> bool:
    """Whether the locked file is still the one of that name (it may have been removed before we locked it)."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
