"""The stock servers of the drill, each on its own transport: `stock.py sdk PORT` or `stock.py fastmcp PORT`.

The SDK's keeps no event store, FastMCP's keeps one, so both kinds are met. The modern era's questions are asked by
`Resolve` there and by hand here; `requestState` is sealed with a key that outlives a restart, as the SDK advises.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Annotated, Any

import mcp_types
import uvicorn
from fastmcp import Context as FastContext
from fastmcp import FastMCP
from fastmcp.server.event_store import EventStore
from mcp.server import MCPServer
from mcp.server.mcpserver import Context, RequestStateSecurity
from mcp.server.mcpserver.resolve import Elicit, Resolve
from mcp_types import ToolAnnotations
from starlette.applications import Starlette

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from drills.client.effects import Choice, Confirmation, Wish, did, go_on, how_many, receipt, which_room

_SECURITY = RequestStateSecurity(keys=[b"the drill's key, which outlives" + b" " * 16])
IDEMPOTENT = ToolAnnotations(idempotent_hint=True)


async def _work(ctx: Any) -> None:
    for part in range(4):
        await ctx.report_progress(part, 4)
        await asyncio.sleep(0.01)


# --- the SDK ------------------------------------------------------------------------------------------------

sdk = MCPServer("drill", request_state_security=_SECURITY)


@sdk.tool()
async def book(conversation: str, ctx: Context[Any]) -> dict[str, Any]:
    """As in `target.py`, but nothing is durable. For the handshake era."""
    nights = (await ctx.elicit(how_many(conversation), Wish)).data.nights
    room = (await ctx.elicit(which_room(conversation, nights), Choice)).data.room
    reserved = did(conversation, "reserve")
    go_ahead = (await ctx.elicit(go_on(conversation, room), Confirmation)).data.go_ahead
    return receipt(conversation, nights, room, go_ahead, reserve=reserved, pay=did(conversation, "pay"))


def _ask_nights(conversation: str) -> Elicit[Wish]:
    return Elicit(how_many(conversation), Wish)


def _ask_room(conversation: str, wish: Annotated[Wish, Resolve(_ask_nights)]) -> Elicit[Choice]:
    return Elicit(which_room(conversation, wish.nights), Choice)


def _ask_go(conversation: str, choice: Annotated[Choice, Resolve(_ask_room)]) -> Elicit[Confirmation]:
    return Elicit(go_on(conversation, choice.room), Confirmation)


@sdk.tool()
async def book_rounds(
    conversation: str,
    wish: Annotated[Wish, Resolve(_ask_nights)],
    choice: Annotated[Choice, Resolve(_ask_room)],
    go: Annotated[Confirmation, Resolve(_ask_go)],
) -> dict[str, Any]:
    """The same for the modern era: all that is asked is resolved first."""
    reserved, paid = did(conversation, "reserve"), did(conversation, "pay")
    return receipt(conversation, wish.nights, choice.room, go.go_ahead, reserve=reserved, pay=paid)


@sdk.tool()
async def charge(conversation: str, ctx: Context[Any]) -> dict[str, Any]:
    """An effect that must not be there twice."""
    await _work(ctx)
    return {"conversation": conversation, "tokens": {"charge": did(conversation, "charge")}}


@sdk.tool(annotations=IDEMPOTENT)
async def look(conversation: str, ctx: Context[Any]) -> dict[str, Any]:
    """May be called as often as anybody likes."""
    await _work(ctx)
    return {"conversation": conversation, "tokens": {"look": did(conversation, "look")}}


# --- FastMCP ------------------------------------------------------------------------------------------------

fast: FastMCP[Any] = FastMCP("drill", request_state_security=_SECURITY)


@fast.tool(name="book")
async def fast_book(conversation: str, ctx: FastContext) -> dict[str, Any]:
    """As in `target.py`, but nothing is durable. For the handshake era."""
    nights = (await ctx.elicit(how_many(conversation), Wish)).data.nights
    room = (await ctx.elicit(which_room(conversation, nights), Choice)).data.room
    reserved = did(conversation, "reserve")
    go_ahead = (await ctx.elicit(go_on(conversation, room), Confirmation)).data.go_ahead
    return receipt(conversation, nights, room, go_ahead, reserve=reserved, pay=did(conversation, "pay"))


@fast.tool(name="book_rounds")
async def fast_book_rounds(conversation: str, ctx: FastContext) -> Any:
    """The same for the modern era, by hand: the answers so far are in the state."""
    given: dict[str, Any] = {}
    if ctx.request_state:
        given = json.loads(ctx.request_state)
    for response in (ctx.input_responses or {}).values():
        given |= response.content or {}
    if "nights" not in given:
        return _ask(how_many(conversation), Wish, given)
    if "room" not in given:
        return _ask(which_room(conversation, given["nights"]), Choice, given)
    if "go_ahead" not in given:
        return _ask(go_on(conversation, given["room"]), Confirmation, given)
    reserved, paid = did(conversation, "reserve"), did(conversation, "pay")
    return receipt(conversation, given["nights"], given["room"], given["go_ahead"], reserve=reserved, pay=paid)


def _ask(text: str, schema: Any, given: dict[str, Any]) -> mcp_types.InputRequiredResult:
    params = mcp_types.ElicitRequestFormParams(message=text, requested_schema=schema.model_json_schema())
    request = mcp_types.ElicitRequest(params=params)
    return mcp_types.InputRequiredResult(input_requests={"asked": request}, request_state=json.dumps(given))


@fast.tool(name="charge")
async def fast_charge(conversation: str, ctx: FastContext) -> dict[str, Any]:
    """An effect that must not be there twice."""
    await _work(ctx)
    return {"conversation": conversation, "tokens": {"charge": did(conversation, "charge")}}


@fast.tool(name="look", annotations=IDEMPOTENT)
async def fast_look(conversation: str, ctx: FastContext) -> dict[str, Any]:
    """May be called as often as anybody likes."""
    await _work(ctx)
    return {"conversation": conversation, "tokens": {"look": did(conversation, "look")}}


# --- either -------------------------------------------------------------------------------------------------


def app(which: str) -> Starlette:
    if which == "fastmcp":
        return fast.http_app(path="/mcp", event_store=EventStore())
    return sdk.streamable_http_app()


if __name__ == "__main__":
    uvicorn.run(app(sys.argv[1]), host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", ws="none")
