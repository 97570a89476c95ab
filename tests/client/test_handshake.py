"""The handshake era: sessions that vanish, streams that break, and answers that are kept until they are taken."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import anyio
import pytest
from mcp import MCPError

from client import peer as wire
from client.peer import Peer
from client.talking import LEGACY, Person, client_of, events_of, question, text_of
from milepost.client import OutcomeUnknown, Policy, Refused
from milepost.client.events import Answered, Reconnected, Reinitialized

pytestmark = pytest.mark.anyio

WORKFLOW = {"tools": [{"name": "look", "inputSchema": {"type": "object"}, "_meta": {"milepost/lane": "stateful"}}]}
ANSWER = {"content": [{"type": "text", "text": "done"}]}
GONE = wire.error(-32600, "Session not found", http=404)


def opened(session_id: str) -> wire.Answer:
    return wire.result(wire.INITIALIZE, f"mcp-session-id: {session_id}")


def primed(event_id: str) -> bytes:
    return wire.frame("", event_id, retry=10)


async def test_a_session_that_is_gone_is_opened_anew_once_for_all_callers(peer: Peer, policy: Policy) -> None:
    peer.on("initialize", opened("one"), opened("two"))

    def by_session(answer: wire.Answer) -> wire.Answer:
        async def choose(connection: wire.Connection) -> None:
            is_new = connection.seen.headers["mcp-session-id"] == "two"
            await (answer if is_new else GONE)(connection)

        return choose

    peer.on("tools/call", by_session(wire.result(ANSWER)))
    results: list[str] = []
    async with client_of(peer, policy, mode=LEGACY) as client, events_of(client) as told:

        async def call(n: int) -> None:
            results.append(text_of(await client.call_tool("look", {"n": n})))

        async with anyio.create_task_group() as group:
            for n in range(10):
                group.start_soon(call, n)
    assert results == ["done"] * 10
    assert len(peer.of("initialize")) == 2
    assert len(peer.of("notifications/initialized")) == 2
    assert len([event for event in told if isinstance(event, Reinitialized)]) == 1
    assert "mcp-session-id" not in peer.of("initialize")[1].headers


@pytest.mark.filterwarnings("ignore::mcp.MCPDeprecationWarning")
async def test_a_new_session_is_set_up_like_the_old_one(peer: Peer, policy: Policy) -> None:
    peer.on("initialize", opened("one"), opened("two"))
    peer.on("tools/call", GONE, wire.result(ANSWER))
    async with client_of(peer, policy, mode=LEGACY) as client:
        await client.set_logging_level("warning")
        await client.subscribe_resource("test://a")
        await client.call_tool("look")
    after = [seen.method for seen in peer.seen if seen.headers.get("mcp-session-id") == "two"]
    assert after[:3] == ["notifications/initialized", "logging/setLevel", "resources/subscribe"]
    assert peer.of("logging/setLevel")[1].params["level"] == "warning"


async def test_the_id_of_a_refusal_is_no_session(peer: Peer, policy: Policy) -> None:
    peer.on("tools/call", wire.status(400, "mcp-session-id: discarded"), wire.result(ANSWER))
    async with client_of(peer, policy, mode=LEGACY) as client:
        with pytest.raises(Refused):
            await client.call_tool("look")
        await client.call_tool("look")
    assert peer.of("tools/call")[1].headers["mcp-session-id"] == "session-1"


async def test_a_server_that_keeps_no_session_is_left_in_the_end(peer: Peer, policy: Policy) -> None:
    peer.on("tools/call", GONE)
    async with client_of(peer, policy, mode=LEGACY) as client:
        with pytest.raises(Refused, match="does not know the session"):
            await client.call_tool("look")
    assert len(peer.of("initialize")) < 20


async def test_a_broken_stream_is_read_on_where_it_stood(peer: Peer, policy: Policy) -> None:
    def second_half(connection: wire.Connection) -> Any:
        done = wire.frame({"jsonrpc": "2.0", "id": peer.of("tools/call")[0].id, "result": ANSWER}, "s.2")
        return wire.stream(done)(connection)

    peer.on("tools/call", wire.stream(primed("s.0"), wire.frame({"jsonrpc": "2.0", "method": "x"}, "s.1"), reset=True))
    async with client_of(peer, policy, mode=LEGACY) as client, events_of(client) as told:
        peer.on("GET", second_half)
        assert text_of(await client.call_tool("look")) == "done"
    resumed = next(seen for seen in peer.of("GET") if "last-event-id" in seen.headers)
    assert resumed.headers["last-event-id"] == "s.1"
    assert [type(event) for event in told if isinstance(event, Reconnected)] == [Reconnected]
    assert len(peer.of("tools/call")) == 1


async def test_a_server_that_ends_a_long_wait_finds_its_client_back(peer: Peer, policy: Policy) -> None:
    rounds = 30

    def later(connection: wire.Connection) -> Any:
        last = connection.seen.headers.get("last-event-id")
        if last is None:
            return wire.status(405)(connection)
        n = int(last.split(".")[1]) + 1
        if n < rounds:
            return wire.stream(primed(f"s.{n}"))(connection)
        return wire.stream(wire.frame({"jsonrpc": "2.0", "id": peer.of("tools/call")[0].id, "result": ANSWER}))(
            connection
        )

    peer.on("tools/call", wire.stream(primed("s.0")))
    peer.on("GET", later)
    async with client_of(peer, policy, mode=LEGACY) as client:
        assert text_of(await client.call_tool("look")) == "done"


async def test_a_stream_that_can_not_be_read_on_leaves_the_outcome_unknown(peer: Peer, policy: Policy) -> None:
    peer.on("tools/call", wire.stream(primed("s.0"), reset=True))
    peer.on("GET", wire.status(400))
    async with client_of(peer, policy, mode=LEGACY) as client:
        with pytest.raises(OutcomeUnknown, match="can't be read on"):
            await client.call_tool("look")
    assert len(peer.of("tools/call")) == 1


async def test_a_session_that_ends_under_a_call_re_issues_a_workflow_and_answers_from_memory(
    peer: Peer, policy: Policy
) -> None:
    peer.on("initialize", opened("one"), opened("two"))
    peer.on("tools/list", wire.result(WORKFLOW))
    ask = wire.frame(question("who?", "q-1", question="q1"), "s.1")
    ask_again = wire.frame(question("who?", "q-9", question="q1"), "t.1")
    answered = anyio.Event()

    async def broken(connection: wire.Connection) -> None:
        await wire.stream(primed("s.0"), ask, end=False)(connection)

    async def renewed(connection: wire.Connection) -> None:
        await connection.head(200, "content-type: text/event-stream")
        await connection.chunk(ask_again)
        await answered.wait()
        await connection.chunk(wire.frame({"jsonrpc": "2.0", "id": connection.seen.id, "result": ANSWER}))
        await connection.end()

    async def taken(connection: wire.Connection) -> None:
        await wire.status(202)(connection)
        answered.set()

    peer.on("tools/call", broken, renewed)
    peer.on("answer", GONE, taken)
    peer.on("GET", GONE)
    person = Person()
    async with client_of(peer, policy, mode=LEGACY, elicitation_callback=person) as client:
        assert text_of(await client.call_tool("look")) == "done"
    assert person.asked == ["who?"]
    assert [seen.body["id"] for seen in peer.of("answer")] == ["q-1", "q-9"]
    assert peer.of("answer")[0].body["result"] == peer.of("answer")[1].body["result"]


# --- questions -----------------------------------------------------------------------------------


def conversation(*frames: bytes) -> tuple[wire.Answer, wire.Answer]:
    """A call that asks, and is done when its answer is taken; and how the answer is acknowledged."""
    answered = anyio.Event()

    async def call(connection: wire.Connection) -> None:
        await connection.head(200, "content-type: text/event-stream")
        for one in frames:
            await connection.chunk(one)
        await answered.wait()
        await connection.chunk(wire.frame({"jsonrpc": "2.0", "id": connection.seen.id, "result": ANSWER}))
        await connection.end()

    async def take(connection: wire.Connection) -> None:
        await wire.status(202)(connection)
        answered.set()

    return call, take


async def test_an_answer_is_sent_until_it_is_acknowledged(peer: Peer, policy: Policy) -> None:
    call, take = conversation(wire.frame(question("who?", 1)))
    peer.on("tools/call", call)
    peer.on("answer", wire.status(503), wire.drop, wire.status(500), take)
    person = Person()
    async with client_of(peer, policy, mode=LEGACY, elicitation_callback=person) as client, events_of(client) as told:
        await client.call_tool("look")
    assert person.asked == ["who?"]
    assert len({str(seen.body) for seen in peer.of("answer")}) == 1
    assert len(peer.of("answer")) == 4
    assert [event.acknowledged for event in told if isinstance(event, Answered)] == [False, True]


async def test_a_question_that_is_delivered_twice_is_asked_once(peer: Peer, policy: Policy) -> None:
    asked = wire.frame(question("who?", "q-1", question="q1"))
    call, take = conversation(asked, asked, wire.frame(question("who?", "q-2", question="q1")))
    peer.on("tools/call", call)
    peer.on("answer", take)
    person = Person()
    async with client_of(peer, policy, mode=LEGACY, elicitation_callback=person) as client:
        await client.call_tool("look")
    assert person.asked == ["who?"]


async def test_a_question_that_is_taken_back_is_not_asked_any_more(peer: Peer, policy: Policy) -> None:
    withdrawn = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "q-1"}}
    person = Person(ready=anyio.Event())

    async def call(connection: wire.Connection) -> None:
        await connection.head(200, "content-type: text/event-stream")
        await connection.chunk(wire.frame(question("who?", "q-1")))
        await person.being_asked.wait()
        await connection.chunk(wire.frame(withdrawn))
        await connection.chunk(wire.frame({"jsonrpc": "2.0", "id": connection.seen.id, "result": ANSWER}))
        await connection.end()

    peer.on("tools/call", call)
    async with client_of(peer, policy, mode=LEGACY, elicitation_callback=person) as client:
        await client.call_tool("look")
    assert not peer.of("answer")


async def test_more_questions_at_a_time_than_the_limit_are_refused(peer: Peer) -> None:
    few = Policy(first_delay=0.01, max_open_questions=2)
    person = Person(ready=anyio.Event())
    peer.on("tools/call", wire.stream(*[wire.frame(question(f"{n}?", n)) for n in range(5)], end=False))
    async with (
        client_of(peer, few, mode=LEGACY, elicitation_callback=person) as client,
        anyio.create_task_group() as group,
    ):
        group.start_soon(client.call_tool, "look")
        refused = await peer.until("answer", 3)
        group.cancel_scope.cancel()
    assert all("at most 2 questions" in seen.body["error"]["message"] for seen in refused)


async def test_a_callback_that_fails_is_an_error_to_the_server(peer: Peer, policy: Policy) -> None:
    async def fails(_context: Any, _params: Any) -> Any:
        raise ValueError("no dialog here")

    call, take = conversation(wire.frame(question("who?", 1)))
    peer.on("tools/call", call)
    peer.on("answer", take)
    async with client_of(peer, policy, mode=LEGACY, elicitation_callback=fails) as client:
        await client.call_tool("look")
    assert peer.of("answer")[0].body["error"]["message"] == "no dialog here"


async def test_a_ping_is_answered(peer: Peer, policy: Policy) -> None:
    call, take = conversation(wire.frame({"jsonrpc": "2.0", "id": 7, "method": "ping"}))
    peer.on("tools/call", call)
    peer.on("answer", take)
    async with client_of(peer, policy, mode=LEGACY) as client:
        await client.call_tool("look")
    assert peer.of("answer")[0].body == {"jsonrpc": "2.0", "id": 7, "result": {}}


# --- the two clocks ------------------------------------------------------------------------------


async def test_waiting_for_a_person_does_not_burn_the_calls_time(peer: Peer, policy: Policy) -> None:
    call, take = conversation(wire.frame(question("who?", 1)))
    peer.on("tools/call", call)
    peer.on("answer", take)
    person = Person(ready=anyio.Event())
    async with (
        client_of(peer, policy, mode=LEGACY, elicitation_callback=person) as client,
        anyio.create_task_group() as group,
    ):

        async def slowly() -> None:
            await person.being_asked.wait()
            deadline = anyio.current_time() + 0.6  # longer than both limits below
            while anyio.current_time() < deadline:
                await anyio.lowlevel.checkpoint()
            assert person.ready is not None
            person.ready.set()

        group.start_soon(slowly)
        assert text_of(await client.call_tool("look", read_timeout_seconds=0.4)) == "done"


async def test_a_call_without_an_answer_in_time_is_cancelled_at_the_server(peer: Peer, policy: Policy) -> None:
    peer.on("tools/call", wire.stream(wire.frame("", "s.0"), end=False))
    async with client_of(peer, policy, mode=LEGACY) as client:
        with pytest.raises(MCPError, match="timed out"):
            await client.call_tool("look", read_timeout_seconds=0.1)
        cancelled = (await peer.until("notifications/cancelled"))[0]
    assert cancelled.params["requestId"] == peer.of("tools/call")[0].id


async def test_progress_never_goes_back_and_renews_the_clock(peer: Peer, policy: Policy) -> None:
    def moved(value: float) -> wire.Frame:
        def one(seen: wire.Seen) -> bytes:
            params = {"progressToken": seen.meta["progressToken"], "progress": value}
            return wire.frame({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})

        return one

    frames = [moved(value) for value in (1, 2, 2, 1, 3)]
    peer.on(
        "tools/call", wire.stream(*frames, lambda seen: wire.frame({"jsonrpc": "2.0", "id": seen.id, "result": ANSWER}))
    )
    seen: list[float] = []

    async def progress(value: float, _total: float | None, _message: str | None) -> None:
        seen.append(value)

    async with client_of(peer, policy, mode=LEGACY) as client:
        await client.call_tool("look", progress_callback=progress)
    assert seen == [1, 2, 3]


async def test_a_call_with_a_time_limit_wants_the_progress_that_renews_it(peer: Peer, policy: Policy) -> None:
    async with client_of(peer, policy, mode=LEGACY) as client:
        await client.call_tool("look", read_timeout_seconds=9)
        await client.call_tool("look")
    assert ["progressToken" in seen.meta for seen in peer.of("tools/call")] == [True, False]


async def test_the_session_is_ended_with_the_client(peer: Peer, policy: Policy) -> None:
    async with client_of(peer, policy, mode=LEGACY) as client:
        await client.call_tool("look")
    assert peer.of("DELETE")[0].headers["mcp-session-id"] == "session-1"


async def test_what_the_sessions_own_stream_says_belongs_to_no_call(peer: Peer, policy: Policy) -> None:
    """Also where a call opened the session anew."""
    whose: ContextVar[str] = ContextVar("whose", default="nobody's")
    heard: list[str] = []
    told = anyio.Event()

    async def message(_message: Any) -> None:
        heard.append(whose.get())
        told.set()

    changed = wire.frame({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
    peer.on("initialize", opened("one"), opened("two"))
    peer.on("tools/call", GONE, wire.result(ANSWER))
    peer.on("GET", wire.status(405), wire.stream(changed, end=False))
    async with client_of(peer, policy, mode=LEGACY, message_handler=message) as client:
        await peer.until("GET")
        whose.set("a call's")
        await client.call_tool("look")
        with anyio.fail_after(10):
            await told.wait()
    assert heard == ["nobody's"]
