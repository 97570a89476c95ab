"""The kernel adapter against the real SDK and the real FastMCP: one attempt of a tool, over a channel of ours."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Annotated, Any

import pytest
from fastmcp import Context as FastContext
from fastmcp import FastMCP
from fastmcp.server.auth import require_scopes
from fastmcp.server.middleware import Middleware
from mcp import Client
from mcp.server import MCPServer
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.resolve import Elicit, Resolve
from mcp.shared.exceptions import MCPError, NoBackChannelError
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ClientCapabilities,
    InputRequiredResult,
    SamplingCapability,
    SamplingMessage,
    TextContent,
)
from pydantic import BaseModel

from host.fakes import Answer, FakeChannel, a_call, accepted
from milepost.core.errors import PeerError, QuestionExpired, Suspended
from milepost.core.records import LOCAL_USER, CallContext, Outcome, Principal
from milepost.wire import sdk
from milepost.wire.kernel import SdkKernel, shape_for_wire

pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")

ELICIT = "elicitation/create"
SAMPLE = "sampling/createMessage"


class Day(BaseModel):
    day: str


async def run(
    server: object, call: CallContext, *answers: tuple[str, Answer], channel: FakeChannel | None = None
) -> tuple[Outcome, FakeChannel]:
    channel = channel or FakeChannel(answers)
    lowlevel = sdk.lowlevel_of(server)
    async with lowlevel.lifespan(lowlevel) as state:
        return await SdkKernel(lowlevel, state).execute(call, channel), channel


def text(outcome: Outcome) -> str:
    assert outcome.result is not None, outcome
    return str(outcome.result["content"][0]["text"])


async def test_what_a_call_held_is_freed_when_it_is_over_without_the_collector() -> None:
    gc.disable()
    try:
        _, channel = await run(mcp, a_call("one_question"), (ELICIT, accepted(day="Monday")))
        held = weakref.ref(channel)
        del channel
        assert held() is None
    finally:
        gc.enable()


# --- the official SDK ----------------------------------------------------------------------------

mcp = MCPServer("travel")


@mcp.tool()
async def one_question(ctx: Context) -> str:
    reply = await ctx.elicit("When?", Day)
    return f"{reply.action} {reply.data.day if reply.action == 'accept' else ''}"


@mcp.tool()
async def two_at_once(ctx: Context) -> str:
    first, second = await asyncio.gather(ctx.elicit("From?", Day), ctx.elicit("To?", Day))
    return f"{first.data.day} to {second.data.day}"


@mcp.tool()
async def a_link(ctx: Context) -> str:
    return (await ctx.elicit_url("Please pay", "https://pay.example/1", "pay-1")).action


@mcp.tool()
async def a_letter(ctx: Context) -> str:
    message = SamplingMessage(role="user", content=TextContent(type="text", text="Write"))
    try:
        result = await ctx.session.create_message([message], max_tokens=10)
    except MCPError as error:
        return f"template, because of {error.code} {error.message}"
    return str(result.content.text)


@mcp.tool()
async def the_roots(ctx: Context) -> str:
    return ",".join(str(root.uri) for root in (await ctx.session.list_roots()).roots)


@mcp.tool()
async def talkative(ctx: Context) -> str:
    await ctx.report_progress(1, 3, "one")
    await ctx.log("debug", "small talk")
    await ctx.log("error", "alarm")
    await ctx.session.send_resource_updated("a://b")
    return "done"


@mcp.tool()
async def what_it_sees(ctx: Context) -> dict[str, Any]:
    token = get_access_token()
    return {
        "request": ctx.request_id,
        "version": ctx.protocol_version,
        "headers": ctx.headers,
        "client": ctx.session.client_params.client_info.name if ctx.session.client_params else None,
        "elicits": ctx.session.check_client_capability(ClientCapabilities(elicitation={})),
        "samples": ctx.session.check_client_capability(ClientCapabilities(sampling=SamplingCapability())),
        "token": token.token if token else None,
        "subject": token.subject if token else None,
        "scopes": token.scopes if token else None,
        "meta": dict(ctx.request_context.meta or {}),
        "state": ctx.request_state,
    }


@mcp.tool()
async def pings(ctx: Context) -> str:
    await ctx.session.send_ping()
    return "pong"


@mcp.tool()
async def off_spec(ctx: Context) -> str:
    try:
        await ctx.request_context.session._connection.send_raw_request("tasks/list", None)
    except NoBackChannelError:
        return "refused"
    return "sent"


@mcp.tool()
async def falls() -> str:
    raise ValueError("secret detail")


@mcp.tool()
async def refuses() -> str:
    raise MCPError(-32001, "no seats", {"left": 0})


async def ask_day(pnr: str) -> Elicit[Day]:
    return Elicit(f"When, for {pnr}?", Day)


@mcp.tool()
async def resolved(pnr: str, wish: Annotated[Day, Resolve(ask_day)]) -> str:
    return f"{pnr} on {wish.day}"


async def test_an_elicitation_of_a_modern_caller_goes_to_the_channel_and_its_answer_to_the_tool() -> None:
    outcome, channel = await run(mcp, a_call("one_question"), (ELICIT, accepted(day="Monday")))
    assert text(outcome) == "accept Monday"
    method, params = channel.asked[0]
    assert method == ELICIT
    assert params["message"] == "When?"
    assert params["requestedSchema"]["properties"]["day"]["type"] == "string"


@pytest.mark.parametrize("action", ["decline", "cancel"])
async def test_declining_and_cancelling_are_answers_too(action: str) -> None:
    outcome, _ = await run(mcp, a_call("one_question"), (ELICIT, {"action": action}))
    assert text(outcome).strip() == action


async def test_hazard_p2_4_a_gather_of_two_questions_asks_both_before_it_suspends() -> None:
    channel = FakeChannel()
    with pytest.raises(Suspended):
        await run(mcp, a_call("two_at_once"), channel=channel)
    assert sorted(params["message"] for _, params in channel.asked) == ["From?", "To?"]


async def test_both_answers_of_a_gather_reach_their_question() -> None:
    outcome, _ = await run(mcp, a_call("two_at_once"), (ELICIT, accepted(day="Mon")), (ELICIT, accepted(day="Tue")))
    assert text(outcome) == "Mon to Tue"


async def test_a_question_by_link_is_a_question() -> None:
    outcome, channel = await run(mcp, a_call("a_link"), (ELICIT, {"action": "accept"}))
    assert text(outcome) == "accept"
    assert channel.asked[0][1]["url"] == "https://pay.example/1"


async def test_hazard_p2_3_sampling_and_roots_use_the_second_door_and_reach_the_channel() -> None:
    letter = {"role": "assistant", "model": "m", "content": {"type": "text", "text": "Dear"}}
    outcome, _ = await run(mcp, a_call("a_letter", capabilities={"sampling": {}}), (SAMPLE, letter))
    assert text(outcome) == "Dear"
    outcome, _ = await run(mcp, a_call("the_roots"), ("roots/list", {"roots": [{"uri": "file:///a"}]}))
    assert text(outcome) == "file:///a"


async def test_an_error_of_the_client_is_raised_in_the_tool_as_the_sdk_does() -> None:
    outcome, _ = await run(mcp, a_call("a_letter"), (SAMPLE, PeerError(-32601, "Method not found")))
    assert text(outcome) == "template, because of -32601 Method not found"


async def test_an_expired_question_is_raised_in_the_tool_and_never_as_an_error_of_the_kernel() -> None:
    class Expiring(FakeChannel):
        async def ask(self, method: str, params: Any) -> Any:
            raise QuestionExpired

    outcome, _ = await run(mcp, a_call("one_question"), channel=Expiring())
    assert outcome.result is not None
    assert outcome.result["isError"]


async def test_progress_and_notifications_reach_the_channel() -> None:
    _, channel = await run(mcp, a_call("talkative", wire_version="2025-11-25"))
    assert channel.progressed == [(1, 3, "one")]
    assert [(m, (p or {}).get("level")) for m, p in channel.notified] == [
        ("notifications/message", "debug"),
        ("notifications/message", "error"),
        ("notifications/resources/updated", None),
    ]


@pytest.mark.parametrize(
    ("version", "level", "seen"),
    [
        ("2025-11-25", None, ["debug", "error"]),
        ("2025-11-25", "error", ["error"]),
        ("2026-07-28", None, []),
        ("2026-07-28", "debug", ["debug", "error"]),
        ("2026-07-28", "nonsense", []),
    ],
)
async def test_log_messages_are_sent_as_far_as_the_caller_asked_for_them(
    version: str, level: str | None, seen: list[str]
) -> None:
    _, channel = await run(mcp, a_call("talkative", wire_version=version, log_level=level))
    assert [p["level"] for m, p in channel.notified if m == "notifications/message" and p] == seen


async def test_hazard_p2_2_an_attempt_sees_the_pinned_call_and_nothing_else() -> None:
    call = a_call(
        "what_it_sees",
        client_info={"name": "host", "version": "1"},
        principal=Principal(issuer="https://i", subject="ann", client="app", scopes=("book",)),
        meta={
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
            "mine": 1,
        },
    )
    outcome, _ = await run(mcp, call)
    assert outcome.result is not None
    seen = outcome.result["structuredContent"]
    seen = seen.get("result", seen)
    assert seen["request"] == "7"
    assert seen["version"] == "2025-11-25"
    assert seen["headers"] is None
    assert seen["client"] == "host"
    assert seen["elicits"] is True
    assert seen["samples"] is False
    assert seen["token"] == ""
    assert seen["subject"] == "ann"
    assert seen["scopes"] == ["book"]
    assert seen["meta"] == {"mine": 1, "progress_token": "milepost"}
    assert seen["state"] is None


@pytest.mark.parametrize("principal", [Principal(), LOCAL_USER])
async def test_without_a_verified_token_there_is_no_access_token_in_an_attempt(principal: Principal) -> None:
    outcome, _ = await run(mcp, a_call("what_it_sees", principal=principal))
    assert outcome.result is not None
    assert '"token": null' in text(outcome)


async def test_what_a_client_declared_badly_is_left_out_and_elicitation_stays() -> None:
    call = a_call("what_it_sees", capabilities={"sampling": 7}, client_info={"nme": "x"})
    outcome, _ = await run(mcp, call)
    assert '"elicits": true' in text(outcome)
    assert '"client": null' in text(outcome)


async def test_hazard_p2_3_a_ping_is_answered_here_and_never_becomes_a_question() -> None:
    outcome, channel = await run(mcp, a_call("pings"))
    assert text(outcome) == "pong"
    assert channel.asked == []


async def test_any_other_request_has_no_back_channel() -> None:
    outcome, channel = await run(mcp, a_call("off_spec"))
    assert text(outcome) == "refused"
    assert channel.asked == []


async def test_hazard_p2_6_resolve_parameters_ask_through_the_channel() -> None:
    outcome, channel = await run(mcp, a_call("resolved", arguments={"pnr": "X1"}), (ELICIT, accepted(day="Monday")))
    assert text(outcome) == "X1 on Monday"
    assert channel.asked[0][1]["message"] == "When, for X1?"


async def test_a_crash_of_the_tool_is_the_result_that_the_sdk_shapes_and_masks() -> None:
    outcome, _ = await run(mcp, a_call("falls"))
    assert outcome.result is not None
    assert outcome.result["isError"] is True
    assert "secret detail" not in text(outcome)


async def test_a_protocol_error_of_the_tool_is_an_error_outcome() -> None:
    outcome, _ = await run(mcp, a_call("refuses"))
    assert outcome == Outcome(error={"code": -32001, "message": "no seats", "data": {"left": 0}})


async def test_an_exception_of_a_low_level_handler_becomes_an_internal_error_without_its_text() -> None:
    async def call_tool(_ctx: Any, params: CallToolRequestParams) -> CallToolResult:
        raise RuntimeError("secret")

    outcome, _ = await run(Server("low", on_call_tool=call_tool), a_call("any"))
    assert outcome.error == {"code": -32603, "message": "Internal server error"}


@mcp.tool()
async def unannounced() -> Any:
    return InputRequiredResult(request_state="x")


async def test_hazard_p2_6_an_unannounced_input_required_result_fails_with_an_error_that_says_what_to_do() -> None:
    outcome, _ = await run(mcp, a_call("unannounced"))
    assert outcome.error is not None
    assert "ask with ctx.elicit() instead" in str(outcome.error["message"])


async def test_engine_signals_pass_through_untouched() -> None:
    with pytest.raises(Suspended):
        await run(mcp, a_call("one_question"))


async def test_the_callers_context_is_as_before_after_an_attempt() -> None:
    before = get_access_token()
    await run(mcp, a_call("one_question", principal=Principal(client="app")), (ELICIT, accepted(day="x")))
    assert get_access_token() is before


# --- FastMCP -------------------------------------------------------------------------------------

fast = FastMCP("fast")


@fast.tool
async def fast_question(ctx: FastContext) -> str:
    reply = await ctx.elicit("How many?", int)
    return f"{reply.action} {getattr(reply, 'data', None)}"


@fast.tool
async def fast_talk(ctx: FastContext) -> str:
    await ctx.report_progress(2, 4, "half")
    await ctx.info("hello")
    return ctx.session_id


@fast.tool(auth=require_scopes("book"))
async def secured(ctx: FastContext) -> str:
    return (await ctx.elicit("Sure?", bool)).action


async def test_hazard_p2_6_fastmcp_elicits_although_the_caller_is_modern() -> None:
    outcome, channel = await run(fast, a_call("fast_question"), (ELICIT, accepted(value=3)))
    assert text(outcome) == "accept 3"
    assert channel.asked[0][1]["message"] == "How many?"


async def test_hazard_p2_12_fastmcp_progress_reaches_the_channel_although_the_caller_gave_no_token() -> None:
    _, channel = await run(fast, a_call("fast_talk", wire_version="2025-11-25"))
    assert channel.progressed == [(2, 4, "half")]
    assert [m for m, _ in channel.notified] == ["notifications/message"]


async def test_hazard_p2_2_fastmcps_session_id_is_the_same_in_every_attempt() -> None:
    call = a_call("fast_talk", trace_id="ab" * 16)
    first, _ = await run(fast, call)
    again, _ = await run(fast, call)
    assert text(first) == text(again)
    pinned, _ = await run(fast, a_call("fast_talk", session="s-ref"))
    assert text(pinned) == "s-ref"


async def test_hazard_p2_2_a_tool_with_required_scopes_is_known_to_an_attempt_without_a_request() -> None:
    principal = Principal(client="app", subject="ann", scopes=("book",))
    outcome, _ = await run(fast, a_call("secured", principal=principal), (ELICIT, accepted(value=True)))
    assert text(outcome) == "accept"
    outcome, _ = await run(fast, a_call("secured", principal=Principal(client="app")))
    assert text(outcome) == "Unknown tool: 'secured'"


async def test_hazard_p2_17_middleware_of_both_sdks_wraps_every_attempt_and_lets_signals_through() -> None:
    seen: list[str] = []

    class Watch(Middleware):
        async def on_call_tool(self, context: Any, call_next: Any) -> Any:
            seen.append("fast")
            return await call_next(context)

    async def watch(ctx: Any, call_next: Any) -> Any:
        seen.append(f"sdk {ctx.protocol_version}")
        return await call_next(ctx)

    server = FastMCP("with middleware", middleware=[Watch()])
    server.tool(fast_question)
    with pytest.raises(Suspended):
        await run(server, a_call("fast_question"))
    official = MCPServer("with middleware", middleware=[watch])
    official.add_tool(one_question)
    with pytest.raises(Suspended):
        await run(official, a_call("one_question"))
    assert seen == ["fast", "sdk 2025-11-25"]


# --- the wire's form -----------------------------------------------------------------------------


def test_a_modern_wire_gets_the_result_type_and_the_server_info() -> None:
    shaped = shape_for_wire({"content": [], "_meta": {"a": 1}}, "2026-07-28", sdk.lowlevel_of(mcp))
    assert shaped["resultType"] == "complete"
    assert shaped["_meta"]["a"] == 1
    assert shaped["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "travel"
    assert "_meta" in shape_for_wire({"content": []}, "2026-07-28", sdk.lowlevel_of(mcp))


def test_a_handshake_wire_gets_the_result_as_it_is() -> None:
    result = {"content": [{"type": "text", "text": "x"}], "structuredContent": {"a": 1}}
    assert shape_for_wire(result, "2025-11-25", sdk.lowlevel_of(mcp)) == result
    assert shape_for_wire(result, "2024-11-05", sdk.lowlevel_of(mcp)) == result


async def test_the_shaped_result_equals_what_the_sdk_itself_would_have_sent() -> None:
    outcome, _ = await run(mcp, a_call("falls"))
    assert outcome.result is not None
    ours = shape_for_wire(outcome.result, "2026-07-28", sdk.lowlevel_of(mcp))
    async with Client(mcp, mode="2026-07-28") as client:
        theirs = await client.call_tool("falls", {})
    assert ours == theirs.model_dump(by_alias=True, mode="json", exclude_none=True)
