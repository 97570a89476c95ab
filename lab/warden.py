"""Cleans up after an owner that died: run as a program of its own, which outlives the owner by a moment.

The owner holds the write end of a pipe that is the warden's stdin. Its end, however the owner died (SIGKILL too), is
the warden's signal: every server that noted its process id in the folder is told to end at once, and the folder is
removed. This works on every POSIX system, unlike Linux's parent-death signal, which also goes off when a mere thread of
the owner ends.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

_PATIENCE = 10.0
"""Seconds for a server to end when told to, before SIGKILL."""
_NOTES = {"*/postmaster.pid": signal.SIGQUIT, "*.pid": signal.SIGTERM}
"""Where servers note their process ids (each runs in the folder of its note), and what ends them."""


def guard(folder: Path) -> subprocess.Popen[bytes]:
    """Start a warden over a folder. It is let go by closing its stdin, which also removes the folder."""
    return subprocess.Popen(
        [sys.executable, "-S", "-I", __file__, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def let_go(warden: subprocess.Popen[bytes]) -> None:
    """Idempotent."""
    assert warden.stdin is not None
    warden.stdin.close()
    warden.wait()


def watch(folder: Path) -> None:
    """Wait for the owner's end, then end what runs in `folder` and remove it."""
    while sys.stdin.buffer.read(1):
        pass
    for pattern, end in _NOTES.items():
        for note in folder.glob(pattern):
            with contextlib.suppress(ProcessLookupError, ValueError, FileNotFoundError):
                _end(note, end)
    shutil.rmtree(folder, ignore_errors=True)


def _end(note: Path, end: signal.Signals) -> None:
    pid = int(note.read_text().split("\n", 1)[0])
    deadline = time.monotonic() + _PATIENCE
    if _lives_in(pid, note):
        os.kill(pid, signal.SIGCONT)
        os.kill(pid, end)
    while _lives_in(pid, note) and time.monotonic() < deadline:
        time.sleep(0.02)
    if _lives_in(pid, note):
        os.kill(pid, signal.SIGKILL)


def _lives_in(pid: int, note: Path) -> bool:
    """Whether this process is there and is the note's: by now its id may be another's."""
    try:
        return Path(f"/proc/{pid}/cwd").resolve(strict=True) == note.parent.resolve()
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return False
    os.kill(pid, 0)
    return note.exists()


if __name__ == "__main__":
    watch(Path(sys.argv[1]))
