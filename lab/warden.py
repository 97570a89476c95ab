"""Cleans up after an owner that died: run as a program of its own, which outlives the owner by a moment.

The owner holds the write end of a pipe that is the warden's stdin. Its end, however the owner died (SIGKILL too), is
the warden's signal: every PostgreSQL whose data lies in the folder is told to end at once, and the folder is removed.
This works on every POSIX system, unlike Linux's parent-death signal, which also goes off when a mere thread of the
owner ends.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path

_PATIENCE = 10.0
"""Seconds for a PostgreSQL to end by itself after SIGQUIT, before SIGKILL."""


def watch(folder: Path) -> None:
    """Wait for the owner's end, then end what runs in `folder` and remove it."""
    while sys.stdin.buffer.read(1):
        pass
    for note in folder.glob("*/postmaster.pid"):
        _end(note)
    shutil.rmtree(folder, ignore_errors=True)


def _end(note: Path) -> None:
    pid = int(note.read_text().split("\n", 1)[0])
    deadline = time.monotonic() + _PATIENCE
    try:
        if _lives_in(pid, note.parent):
            os.kill(pid, signal.SIGCONT)
            os.kill(pid, signal.SIGQUIT)
        while _lives_in(pid, note.parent) and time.monotonic() < deadline:
            time.sleep(0.02)
        if _lives_in(pid, note.parent):
            os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _lives_in(pid: int, data: Path) -> bool:
    """Whether this process is there and is the server of that folder: by now its id may be another's."""
    try:
        return Path(f"/proc/{pid}/cwd").resolve(strict=True) == data.resolve()
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return False
    os.kill(pid, 0)
    return (data / "postmaster.pid").exists()


if __name__ == "__main__":
    watch(Path(sys.argv[1]))
