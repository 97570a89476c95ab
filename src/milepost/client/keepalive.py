"""TCP keepalive on each connection: the system finds out that the machine at its other end, or the way there, is gone.

A server may be silent for as long as it works, so silence alone says little. A machine that is switched off, or a
gateway that has dropped the connection, never says so either; but a live one acknowledges, whatever its server does.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final

Trace = Callable[[str, Any], Awaitable[None]]

_PROBES: Final = 3
_MOST: Final = 32_767.0
"""Seconds: Linux takes no more between two probes."""
_CONNECTED: Final = "connection.connect_tcp.complete"
_IDLE: Final = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", None))  # the latter on macOS
_USER_TIMEOUT: Final = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux: also while something sent waits for its ACK


def options(vanished: float) -> list[tuple[int, int, int]]:
    """(level, option, value) for a connection that is to be given up after `vanished` seconds without a sign."""
    vanished = min(vanished, _MOST)
    seconds = max(1, round(vanished / (2 * _PROBES)))
    wanted = [
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, _IDLE, seconds * _PROBES),
        (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPINTVL", None), seconds),
        (socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPCNT", None), _PROBES),
        (socket.IPPROTO_TCP, _USER_TIMEOUT, max(1, round(vanished * 1000))),
    ]
    return [(level, option, value) for level, option, value in wanted if option is not None]


def watching(vanished: float) -> Trace:
    """A `trace` extension for httpx2's requests, which sets them on each connection as it is made.

    Where the system takes one not (a sandbox; macOS, when the peer is gone already), the connection does without.
    """
    wanted = options(vanished)

    async def trace(event: str, info: Any) -> None:
        if event == _CONNECTED:
            connection = info["return_value"].get_extra_info("socket")
            if connection is not None:
                for level, option, value in wanted:
                    with suppress(OSError):
                        connection.setsockopt(level, option, value)

    return trace
