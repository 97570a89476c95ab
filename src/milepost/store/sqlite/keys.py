"""The store's secrets: a file beside the database, never in it, so that a copied database opens nothing.

The file is JSON, name to hex, readable by its owner only, and replaced as a whole. Keep it with the
database's backups: without it sessions, links and `requestState`s made before can't be recognised.
"""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

from milepost.core.errors import StoreUnavailable

_BYTES = 32


class KeyFile:
    """Named secrets of 32 bytes, made once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: dict[str, bytes] = {}

    def secret(self, name: str) -> bytes:
        """The secret of that name, made now if it never was. Raises StoreUnavailable."""
        if name not in self._known:
            try:
                self._known = self._read_or_make(name)
            except (OSError, ValueError) as error:
                raise StoreUnavailable(
                    f"the key file {self._path} can't be used ({error}): restore it from a backup, or make its "
                    "directory writable"
                ) from error
        return self._known[name]

    def all(self) -> dict[str, bytes]:
        """The secrets that were made so far."""
        return self._read()

    def _read_or_make(self, name: str) -> dict[str, bytes]:
        lock = os.open(self._path.with_name(self._path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            known = self._read()
            if name not in known:
                known[name] = os.urandom(_BYTES)
                self._write(known)
            return known
        finally:
            os.close(lock)

    def _read(self) -> dict[str, bytes]:
        try:
            return {name: bytes.fromhex(text) for name, text in json.loads(self._path.read_text("ascii")).items()}
        except FileNotFoundError:
            return {}

    def _write(self, known: dict[str, bytes]) -> None:
        text = json.dumps({name: secret.hex() for name, secret in known.items()}, indent=1)
        fresh = self._path.with_name(self._path.name + ".new")
        fresh.unlink(missing_ok=True)
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
