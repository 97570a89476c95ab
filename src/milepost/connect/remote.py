"""One client of the remote, kept for as long as the proxy lives: connected when it can be, tried again while it can't.

Hosts give up on a server that doesn't start. So nothing here waits for the remote at start; a request waits a little,
and then is told the URL and the reason. What breaks after the first connection is `milepost.client`'s to mend.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib import metadata

import httpx2
import mcp_types as types
import structlog
from mcp import MCPError
from mcp_types import CONNECTION_CLOSED, ClientCapabilities, DiscoverResult, Implementation
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import ValidationError

from milepost.client import CallError, Client, Policy, ServerUnavailable, Unauthorized
from milepost.client.http import shown
from milepost.connect.hosts import Hosts

log = structlog.get_logger("milepost")

PATIENCE = 10.0
"""Seconds that a request waits for a remote that isn't there. Hosts wait 60 for a result, most of them."""
FIRST_PATIENCE = 2.0
"""The same for what a host asks first (`initialize`, `server/discover`): hosts wait less for a server to start."""
_POLICY = Policy(reach_within=2.0, max_delay=2.0, breaker_max_rest=2.0)
"""A first contact ends soon, so that the reason is known. And one user is no storm that a server must be spared."""
_FIRST_PAUSE, _LAST_PAUSE = 0.25, 30.0
"""Between two tries to connect that nobody waits for: doubled each time. A request that comes is not made to wait."""


class Away(MCPError):
    """The remote can't be reached."""

    def __init__(self, url: str, reason: str) -> None:
        text = f"The remote server {url} can't be reached: {reason}. It is tried again with each request."
        super().__init__(CONNECTION_CLOSED, text, {"url": url, "reason": reason})


@dataclass(frozen=True, slots=True)
class Door:
    """Where the remote is, and how it is spoken to."""

    url: str
    mode: str
    """As the SDK's client takes it: "auto", "legacy", or a modern version."""
    headers: Mapping[str, str]
    journal: str | None

    @property
    def shown(self) -> str:
        """Its URL for logs and hosts (a host's model reads it): many keep a key in the query."""
        return shown(httpx2.URL(self.url))


@dataclass(frozen=True, slots=True)
class Wants:
    """What a host can be asked: the remote is told no more than that."""

    forms: bool = False
    sampling: bool = False
    tools: bool = False
    context: bool = False
    roots: bool = False

    @classmethod
    def of(cls, declared: ClientCapabilities | None) -> Wants:
        if declared is None:
            return cls()
        sampling = declared.sampling
        return cls(
            forms=declared.elicitation is not None,
            sampling=sampling is not None,
            tools=sampling is not None and sampling.tools is not None,
            context=sampling is not None and sampling.context is not None,
            roots=declared.roots is not None,
        )

    @property
    def capability(self) -> types.SamplingCapability:
        return types.SamplingCapability(
            tools=types.SamplingToolsCapability() if self.tools else None,
            context=types.SamplingContextCapability() if self.context else None,
        )


Heard = Callable[[types.ServerNotification], Awaitable[None]]


class Remote:
    """The remote server, for the hosts that can be asked the same things."""

    def __init__(self, door: Door, wants: Wants, hosts: Hosts, *, heard: Heard | None = None) -> None:
        """`heard`: told of every notification of the remote."""
        self.door = door
        self.hosts = hosts
        self._wants = wants
        self._heard = heard
        self._client: Client | None = None
        self._up = asyncio.Event()
        self._wanted = asyncio.Event()
        self._reason = "no try to connect has come to an end yet"

    async def client(self, patience: float = PATIENCE) -> Client:
        """The connected client. Raises Away after `patience` seconds."""
        if self._client is None:
            self._wanted.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience):
                    await self._up.wait()
        if self._client is None:
            raise Away(self.door.shown, self._reason)
        return self._client

    def leave(self) -> None:
        """What is under way is left to be gone on with by a later process; without a journal nobody could."""
        if self._client is not None and self.door.journal is not None:
            self._client.leave()

    async def run(self, attend: Callable[[Client], Awaitable[None]]) -> None:
        """Connect and stay connected, in a task of its own; ends by being cancelled.

        `attend` is run on each connection, and ends by being cancelled too.
        """
        pause = _FIRST_PAUSE
        while True:
            self._wanted.clear()
            try:
                await self._connected(attend)
            except Exception as exc:
                self._reason = words(exc)
                log.warning("the remote can't be reached", url=self.door.shown, reason=self._reason)
            pause = await self._rest(pause)

    async def _rest(self, pause: float) -> float:
        """Until the next try is due, or somebody waits for it. Returns how long the next rest is."""
        await asyncio.sleep(_FIRST_PAUSE)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._wanted.wait()
        return _FIRST_PAUSE if self._wanted.is_set() else min(pause * 2, _LAST_PAUSE)

    async def _connected(self, attend: Callable[[Client], Awaitable[None]]) -> None:
        client = self._made()
        async with client:
            await _introduce(client)
            self._client = client
            self._up.set()
            log.info("the remote is there", url=self.door.shown, version=client.protocol_version)
            try:
                await attend(client)
            finally:
                self._client = None
                self._up.clear()

    def _made(self) -> Client:
        door, wants, hosts = self.door, self._wants, self.hosts
        return Client(
            door.url,
            mode=door.mode,
            headers=door.headers,
            journal=door.journal,
            policy=_POLICY,
            cache=None,
            client_info=Implementation(name="milepost-connect", version=metadata.version("milepost")),
            elicitation_callback=hosts.elicit if wants.forms else None,
            sampling_callback=hosts.sample if wants.sampling else None,
            sampling_capabilities=wants.capability if wants.sampling else None,
            list_roots_callback=hosts.list_roots if wants.roots else None,
            logging_callback=hosts.log,
            message_handler=self._notified,
        )

    async def _notified(self, message: object) -> None:
        if isinstance(message, types.ServerNotification) and self._heard is not None:
            await self._heard(message)


def is_modern(client: Client) -> bool:
    """Whether this connection speaks 2026-07-28 or later."""
    return client.protocol_version in MODERN_PROTOCOL_VERSIONS


async def _introduce(client: Client) -> None:
    """Ask a remote whose version was given, not found out, what it is: the SDK's client takes it unseen.

    Raises ServerUnavailable where it doesn't speak that version.
    """
    if client.mode not in MODERN_PROTOCOL_VERSIONS:
        return
    try:
        found = await client.session.send_discover(client.mode)
        client.session.adopt(DiscoverResult.model_validate(found))
    except CallError:
        raise
    except (MCPError, ValidationError) as exc:
        raise ServerUnavailable(f"it does not speak {client.mode} ({words(exc)}): try --era auto") from exc


def words(exc: BaseException) -> str:
    """Why no connection could be made, in one line. Of a group, its first cause."""
    while isinstance(exc, BaseExceptionGroup):
        exc = exc.exceptions[0]
    text = " ".join(str(exc).split()) or type(exc).__name__
    return f"{text}; give a token that opens it by --bearer-env" if isinstance(exc, Unauthorized) else text
