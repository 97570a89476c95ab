"""Ports of 127.0.0.1 for servers that are killed and started anew on the same one."""

from __future__ import annotations

import contextlib
import os
import random
import socket
from itertools import count, islice

FIRST, LAST = 20_000, 32_000
"""Below those that systems give to outgoing connections: so none takes the port of a server that is dead just now."""
_numbers = count(os.getpid() * 101 + random.randrange(LAST - FIRST))


def free_port() -> int:
    """One that nobody listens on. Each process begins elsewhere, and never names the same one twice in a row."""
    for number in islice(_numbers, 500):
        port = FIRST + number % (LAST - FIRST)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError(f"none of 500 ports between {FIRST} and {LAST} is free")
