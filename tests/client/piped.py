"""`desk`, as a child process that says which one it is: PIDS names a file with a line for each start."""

from __future__ import annotations

import os
from pathlib import Path

from client.desk import mcp

with Path(os.environ["PIDS"]).open("a") as pids:
    pids.write(f"{os.getpid()}\n")

__all__ = ["mcp"]
