"""One call by one client, in whatever process: ours or the SDK's own, and what comes of it in words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx2
import mcp
from mcp import MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp_types import CallToolResult

from drills.client.person import Person
from drills.client.plan import BOOK, HANDSHAKE
from drills.client.told import FINISHED, NO_END, NOT_SENT, REFUSED, SERVER_ERROR, UNKNOWN
from milepost.client import Client, NotSent, OutcomeUnknown, Policy, Refused, ServerUnavailable

POLICY = Policy(
    first_delay=0.05,
    max_delay=1.0,
    give_up_after=90.0,
    silence=2.0,
    quiet=2.0,
    breaker_failures=1000,
    farewell=1.0,
    poll_max=0.5,
)
"""Short waits, so that a drill is short; the breaker is out of the way, for each conversation is to be judged alone."""
STOCK_LIMIT = 6.0
"""Seconds that the stock client's call may take: it has no limit of its own, and would hang where nothing is heard."""
_GOODBYE = 3.0

Outcome = tuple[str, str, dict[str, Any] | None]
"""Outcome, why, and the result's structured content."""


class Badge(httpx2.Auth):
    """Shows a token, and on 401 gets another one."""

    def __init__(self) -> None:
        self._number = 1

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        request.headers["authorization"] = f"Bearer {self._number}"
        response = yield request
        if response.status_code == 401:
            self._number += 1
            request.headers["authorization"] = f"Bearer {self._number}"
            yield request


def mode_of(era: str) -> str:
    return "legacy" if era == HANDSHAKE else "auto"


def tool_of(server: str, era: str, tool: str) -> str:
    """Stock servers ask in each era by another tool."""
    return "book_rounds" if tool == BOOK and server != "milepost" and era != HANDSHAKE else tool


async def _heard(_progress: float, _total: float | None, _message: str | None) -> None:
    """Somebody wants to know how far it is."""


Call = Callable[[Client], Awaitable[Outcome]]


async def with_ours(url: str, era: str, person: Person, journal: str | None, call: Call) -> Outcome:
    """Open our client, and let `call` say what came of it."""
    client = Client(
        url, mode=mode_of(era), elicitation_callback=person, auth=Badge(), policy=POLICY, journal=journal
    )  # fmt: skip
    said: Outcome | None = None
    try:
        async with client:
            said = await call(client)
    except Exception as exc:
        if said is None:
            return told_by(exc)
    return said or (NO_END, "cancelled", None)


async def call_once(client: Client, tool: str, conversation: str) -> Outcome:
    try:
        return of_result(await client.call_tool(tool, {"conversation": conversation}, progress_callback=_heard))
    except Exception as exc:
        return told_by(exc)


def of_result(result: CallToolResult) -> Outcome:
    if result.is_error:
        return SERVER_ERROR, str(result.content)[:300], None
    return FINISHED, "", dict(result.structured_content or {})


def told_by(exc: BaseException) -> Outcome:
    """What an error of our client says of the call."""
    why = f"{type(exc).__name__}: {exc}"
    match exc:
        case OutcomeUnknown():
            return UNKNOWN, why, None
        case NotSent() | ServerUnavailable():
            return NOT_SENT, why, None
        case Refused():
            return REFUSED, why, None
        case MCPError():
            return SERVER_ERROR, why, None
        case _:
            return "bug", why, None


async def with_stock(url: str, era: str, person: Person, tool: str, conversation: str) -> Outcome:
    """The same call by the SDK's own client."""
    said: Outcome | None = None
    try:
        async with asyncio.timeout(STOCK_LIMIT + _GOODBYE), AsyncExitStack() as stack:
            http = await stack.enter_async_context(create_mcp_http_client(auth=Badge()))
            transport = streamable_http_client(url, http_client=http)
            client = mcp.Client(transport, mode=mode_of(era), elicitation_callback=person)
            async with asyncio.timeout(STOCK_LIMIT):
                await stack.enter_async_context(client)
                result = await client.call_tool(tool, {"conversation": conversation}, progress_callback=_heard)
            said = of_result(result)
    except Exception as exc:
        if said is None:
            return "failed", f"{type(exc).__name__}: {exc}"[:300], None
    return said or ("failed", "cancelled", None)
