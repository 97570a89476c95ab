"""The client: the official `mcp.Client`, over a link that survives.  (Being built: what it can do now is the shape.)"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2
import mcp
from mcp_types import CallToolResult, RequestParamsMeta

from milepost.client.events import Bulletin, Reader
from milepost.client.policy import Policy


@dataclass(frozen=True, slots=True)
class Pending:
    """A call that is in the journal and has no end yet."""

    call_id: str
    method: str
    name: str
    arguments: Mapping[str, Any]
    begun: float
    """UTC seconds."""
    questions: tuple[Mapping[str, Any], ...] = ()
    """Open ones: `{"key", "method", "params"}`."""
    alive: bool = False
    """It belongs to a client that is still running."""


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of a resumed call."""

    call: Pending
    result: Any = None
    error: Exception | None = None


@dataclass(kw_only=True)
class Client(mcp.Client):
    """`mcp.Client`, and what keeps a conversation alive."""

    journal: str | None = None
    auth: httpx2.Auth | None = None
    headers: Mapping[str, str] | None = None
    http_client: httpx2.AsyncClient | None = None
    policy: Policy = field(default_factory=Policy)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._bulletin = Bulletin(self.policy.unread_events)

    @property
    def events(self) -> Reader:
        """This client's events from now on; each use makes a reader of its own."""
        return self._bulletin.reader()

    async def call_tool(
        self,
        name: str,
        arguments: dict[str, Any] | None = None,
        *args: Any,
        reissue: bool | None = None,
        meta: RequestParamsMeta | None = None,
        **more: Any,
    ) -> CallToolResult:
        """`reissue`: whether this call may be sent again where its outcome isn't known. None: as its tool declares."""
        return await super().call_tool(name, arguments, *args, meta=meta, **more)

    def pending(self) -> list[Pending]:
        """Calls to this server that the journal holds without an end."""
        return []

    async def resume(self, call_id: str | None = None) -> list[Ended]:
        """Go on with what earlier processes left unfinished; returns once all of it has ended."""
        return []

    def leave(self) -> None:
        """From now on, a call that is abandoned (its task cancelled, the client closed) is left to be resumed."""
