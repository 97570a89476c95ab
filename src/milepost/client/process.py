"""A server's process: started, spoken to in lines, and stopped as the protocol says.

Source: 2025-11-25 basic/transports (stdio), basic/lifecycle (shutdown: close stdin, wait, SIGTERM, SIGKILL). The SDK
does the same (`stdio_client`), through tasks, queues and models of its own for each message; here a line is bytes, and
is bounded.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import anyio
from anyio.abc import Process
from mcp import StdioServerParameters
from mcp.client.stdio import get_default_environment

from milepost.client.policy import Policy
from milepost.client.sse import TooLarge

_LOOK: Final = 0.01
_CHUNK: Final = 2**16
_GONE: Final = (anyio.ClosedResourceError, anyio.BrokenResourceError, OSError)


class ServerProcess:
    """One process, with its pipes."""

    def __init__(self, process: Process, server: StdioServerParameters, policy: Policy) -> None:
        assert process.stdin is not None  # noqa: S101  opened with pipes
        assert process.stdout is not None  # noqa: S101
        self._process, self._stdin, self._stdout = process, process.stdin, process.stdout
        self._server = server
        self._policy = policy
        self._turn = anyio.Lock()

    async def write(self, message: bytes) -> bool:
        """Send one line, of UTF-8. Returns whether it went out; False: nobody reads any more."""
        async with self._turn:
            try:
                await self._stdin.send(self._coded(message) + b"\n")
            except _GONE:
                return False
        return True

    async def lines(self) -> AsyncIterator[bytes]:
        """What it says, line by line, until it says no more. Raises TooLarge."""
        held = bytearray()
        with suppress(anyio.EndOfStream, *_GONE):
            while True:
                chunk = await self._stdout.receive(_CHUNK)
                held += chunk
                if b"\n" in chunk:
                    *whole, rest = held.split(b"\n")
                    held = bytearray(rest)
                    for line in whole:
                        yield self._decoded(bytes(line))
                if len(held) > self._policy.max_message:
                    raise TooLarge(self._policy.max_message)

    def _coded(self, message: bytes) -> bytes:
        if self._server.encoding == "utf-8":
            return message
        return message.decode().encode(self._server.encoding, self._server.encoding_error_handler)

    def _decoded(self, line: bytes) -> bytes:
        if self._server.encoding == "utf-8":
            return line
        return line.decode(self._server.encoding, self._server.encoding_error_handler).encode()

    async def stop(self) -> None:
        """End it and what it has started; it has `Policy.farewell` for it after each hint."""
        with suppress(*_GONE):
            await self._stdin.aclose()
        for how in (signal.SIGTERM, signal.SIGKILL):
            if await self._has_ended():
                break
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, how)
        await self._has_ended()
        with suppress(*_GONE):
            await self._stdout.aclose()

    async def _has_ended(self) -> bool:
        """Or does so soon. (`wait` would also wait for a grandchild that holds the pipes.)"""
        with anyio.move_on_after(self._policy.farewell):
            while self._process.returncode is None:  # noqa: ASYNC110  nothing else tells
                await anyio.sleep(_LOOK)
        return self._process.returncode is not None


@asynccontextmanager
async def running(server: StdioServerParameters, policy: Policy) -> AsyncIterator[ServerProcess]:
    """The process of a command, in a session of its own, its stderr ours.

    Raises OSError, ValueError where it can't be started.
    """
    if "\n".encode(server.encoding) != b"\n":
        raise ValueError(f"the encoding {server.encoding!r} has no lines of bytes: MCP says UTF-8")
    process = await anyio.open_process(
        [server.command, *server.args],
        env=get_default_environment() | (server.env or {}),
        cwd=server.cwd,
        stderr=None,
        start_new_session=True,
    )
    started = ServerProcess(process, server, policy)
    try:
        yield started
    finally:
        with anyio.CancelScope(shield=True):
            await started.stop()
