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
_IN_A_PIPE: Final = 2**20
"""Bytes that a pipe may hold: what more comes out of one whose process has ended, another one says."""


class ServerProcess:
    """One process, with our ends of its pipes.

    They are plain file descriptors, so that it is known how much of a line went out, and that they are closed whoever
    else holds the other ends: what a server starts inherits its stdout, and may outlive it.
    """

    def __init__(self, process: Process, pipes: Pipes, server: StdioServerParameters, policy: Policy) -> None:
        self._process, self._pipes = process, pipes
        self._server = server
        self._policy = policy
        self._turn = anyio.Lock()
        self._unsent = memoryview(b"")
        """Of the newest line. Its sender may have been cancelled when a part of it had gone out."""
        self._over = False
        """Nothing more will come than what is in its pipe,"""
        self._left = _IN_A_PIPE
        """at most so many bytes."""

    @property
    def pid(self) -> int:
        return self._process.pid

    async def write(self, message: bytes) -> bool:
        """Send one line, of UTF-8. Returns whether it went out; False: nobody reads any more. Raises UnicodeError.

        Cancelled, it has sent nothing, or the next line goes out behind what is left of this one.
        """
        line = memoryview(self._coded(message) + b"\n")
        async with self._turn:
            try:
                await self._flush()
                self._unsent = line
                await self._flush()
            except (OSError, anyio.ClosedResourceError):
                return False
            finally:
                if len(self._unsent) == len(line):
                    self._unsent = line[:0]
        return True

    async def _flush(self) -> None:
        while self._unsent:
            try:
                self._unsent = self._unsent[os.write(self._pipes.stdin, self._unsent) :]
            except BlockingIOError:
                await anyio.wait_writable(self._pipes.stdin)

    async def lines(self) -> AsyncIterator[bytes]:
        """What it says, line by line, until it says no more. Raises TooLarge."""
        held = bytearray()
        while chunk := await self._read():
            held += chunk
            if b"\n" in chunk:
                *whole, rest = held.split(b"\n")
                held = bytearray(rest)
                for line in whole:
                    yield self._decoded(bytes(line))
            if len(held) > self._policy.max_message:
                raise TooLarge(self._policy.max_message)

    async def _read(self) -> bytes:
        """The next of what it says; nothing when that is all."""
        while not self._over:
            with suppress(anyio.ClosedResourceError, BlockingIOError):  # it is over; or there was nothing yet
                await anyio.wait_readable(self._pipes.stdout)
                return os.read(self._pipes.stdout, _CHUNK)
        try:
            chunk = os.read(self._pipes.stdout, min(_CHUNK, self._left))
        except BlockingIOError:
            return b""
        self._left -= len(chunk)
        return chunk

    def hang_up(self) -> None:
        """Hear no more than what it has said already."""
        self._over = True
        anyio.notify_closing(self._pipes.stdout)

    async def watch(self) -> None:
        """Hang up when it has ended. Its pipe may not: another process can hold it."""
        await self._process.wait()
        self.hang_up()

    def _coded(self, message: bytes) -> bytes:
        if self._server.encoding == "utf-8":
            return message
        return message.decode().encode(self._server.encoding, self._server.encoding_error_handler)

    def _decoded(self, line: bytes) -> bytes:
        """As UTF-8. What is not of its encoding stays as it came: whoever reads it finds out."""
        if self._server.encoding == "utf-8":
            return line
        try:
            return line.decode(self._server.encoding, self._server.encoding_error_handler).encode()
        except UnicodeError:
            return line

    async def stop(self) -> None:
        """End it, with `Policy.farewell` for it after each hint. A signal is for all that it has started, too."""
        self._pipes.close_stdin()
        for how in (signal.SIGTERM, signal.SIGKILL):
            if await self._has_ended():
                break
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, how)
        await self._has_ended()

    async def _has_ended(self) -> bool:
        """Or does so soon. What it still says is taken from it, so that it can."""
        with anyio.move_on_after(self._policy.farewell):
            while self._process.returncode is None:
                with suppress(BlockingIOError):
                    os.read(self._pipes.stdout, _CHUNK)
                await anyio.sleep(_LOOK)
        return self._process.returncode is not None


class Pipes:
    """Our ends, which never block, and the child's, until it has them."""

    def __init__(self) -> None:
        self.of_child: list[int] = []
        """Its stdin and its stdout."""
        self.stdin = self.stdout = -1
        try:
            theirs, self.stdin = os.pipe()
            self.of_child.append(theirs)
            self.stdout, theirs = os.pipe()
            self.of_child.append(theirs)
        except OSError:
            self.close()
            raise
        os.set_blocking(self.stdin, False)
        os.set_blocking(self.stdout, False)

    def handed_over(self) -> None:
        """The child has its ends, or never will."""
        while self.of_child:
            os.close(self.of_child.pop())

    def close_stdin(self) -> None:
        stdin, self.stdin = self.stdin, -1
        if stdin >= 0:
            anyio.notify_closing(stdin)
            os.close(stdin)

    def close(self) -> None:
        self.handed_over()
        self.close_stdin()
        stdout, self.stdout = self.stdout, -1
        if stdout >= 0:
            anyio.notify_closing(stdout)
            os.close(stdout)


@asynccontextmanager
async def running(server: StdioServerParameters, policy: Policy) -> AsyncIterator[ServerProcess]:
    """The process of a command, in a session of its own, its stderr ours.

    Raises OSError, ValueError where it can't be started.
    """
    _check(server.encoding)
    pipes = Pipes()
    try:
        started = ServerProcess(await _started(server, pipes), pipes, server, policy)
        try:
            yield started
        finally:
            with anyio.CancelScope(shield=True):
                await started.stop()
    finally:
        pipes.close()


async def _started(server: StdioServerParameters, pipes: Pipes) -> Process:
    stdin, stdout = pipes.of_child
    try:
        return await anyio.open_process(
            [server.command, *server.args],
            env=get_default_environment() | (server.env or {}),
            cwd=server.cwd,
            stdin=stdin,
            stdout=stdout,
            stderr=None,
            start_new_session=True,
        )
    finally:
        pipes.handed_over()


def _check(encoding: str) -> None:
    try:
        newline = "\n".encode(encoding)
    except LookupError:
        raise ValueError(f"there is no encoding {encoding!r}") from None
    if newline != b"\n":
        raise ValueError(f"the encoding {encoding!r} has no lines of bytes: MCP says UTF-8")
