"""Runs a command when its turn has come: `python conformance/turn.py FOLDER COMMAND...`.

The suite starts all clients of a set at the same time. Started like this, no more of them run at once than there are
cores; the others cost nothing while they wait. A turn is a locked file in FOLDER, and ends with the process.
"""

import fcntl
import os
import sys


def main(folder: str, command: list[str]) -> None:
    slot = os.open(os.path.join(folder, f"turn-{os.getpid() % (os.cpu_count() or 1)}"), os.O_CREAT | os.O_RDWR)
    os.set_inheritable(slot, True)  # the lock is the command's from here on
    fcntl.flock(slot, fcntl.LOCK_EX)
    os.execv(command[0], command)  # noqa: S606  it is the command line that we were started with


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
