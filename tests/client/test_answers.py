"""What a person answered: kept for its own question, and never for another one."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from mcp import MCPError
from mcp_types import ElicitResult

from client import peer as wire
from client.peer import TEXT, Peer
from client.talking import LEGACY, Person, client_of, question, text_of
from client.test_handshake import ANSWER, opened
from client.test_modern import UNDECLARED, asking
from milepost.client import OutcomeUnknown, Policy

pytestmark = pytest.mark.anyio

READ_ONLY_LEGACY = {
    "tools": [{"name": "look", "inputSchema": {"type": "object"}, "annotations": {"readOnlyHint": True}}]
}


@dataclass
class Counting:
    """Answers each time with another number."""

    asked: int = 0

    async def __call__(self, context: Any, params: Any) -> ElicitResult:
        self.asked += 1
        return ElicitResult(action="accept", content={"name": str(self.asked)})


def asks_in_turn(peer: Peer, *wire_ids: int) -> wire.Answer:
    """A tool that asks the same words under these ids, each once the one before is answered, and then is done."""

    async def answer(connection: wire.Connection) -> None:
        before = len(peer.of("answer"))
        await connection.head(200, "content-type: text/event-stream")
        for n, wire_id in enumerate(wire_ids, 1):
            await connection.chunk(wire.frame(question("name?", wire_id)))
            await peer.until("answer", before + n)
        await connection.chunk(wire.response(ANSWER)(connection.seen))  # type: ignore[operator]
        await connection.end()

    return answer


def asks_and_breaks(peer: Peer, wire_id: int) -> wire.Answer:
    async def answer(connection: wire.Connection) -> None:
        await connection.head(200, "content-type: text/event-stream")
        await connection.chunk(wire.frame(question("name?", wire_id)))
        await peer.until("answer")
        connection.reset()

    return answer


NOT_ACCEPTED = b'{"jsonrpc": "2.0", "id": null, "error": {"code": -32602, "message": "not accepted"}}'
REASON = "name? The last answer was not accepted."


async def test_whoever_answers_wrong_in_a_round_is_asked_each_time_the_server_asks(peer: Peer, policy: Policy) -> None:
    def asks(message: str, state: str) -> wire.Answer:
        requests = {"k": question(message, question="q1")}
        return wire.result({"resultType": "input_required", "inputRequests": requests, "requestState": state})

    peer.on(
        "tools/call", asks("name?", "1"), asks(REASON, "2"), asks(REASON, "3"), asks(REASON, "4"), wire.result(TEXT)
    )
    person = Counting()
    async with client_of(peer, policy, elicitation_callback=person) as client:
        await client.call_tool("look")
    given = [seen.params["inputResponses"]["k"]["content"]["name"] for seen in peer.of("tools/call")[1:]]
    assert given == ["1", "2", "3", "4"]


@pytest.mark.parametrize("early", [True, False], ids=["before it refuses", "afterwards"])
async def test_whoever_answers_wrong_on_a_session_is_asked_each_time_the_server_asks(
    peer: Peer, policy: Policy, early: bool
) -> None:
    asked, refused = [asyncio.Event() for _ in range(4)], [asyncio.Event() for _ in range(4)]

    async def asks(connection: wire.Connection) -> None:
        await connection.head(200, "content-type: text/event-stream")
        for n in (1, 2, 3):
            if n > 1:
                await peer.until("answer", n - 1)
            if n > 1 and not early:
                await refused[n - 1].wait()
            await connection.chunk(wire.frame(question(REASON if n > 1 else "name?", f"id-{n}", question="q1")))
            asked[n].set()
        await peer.until("answer", 3)
        await connection.chunk(wire.response(ANSWER)(connection.seen))  # type: ignore[operator]
        await connection.end()

    async def refuse(connection: wire.Connection) -> None:
        n = len(peer.of("answer"))
        if early:
            await asked[n + 1].wait()
            await anyio.wait_all_tasks_blocked()
        await wire.status(400, body=NOT_ACCEPTED, kind="application/json")(connection)
        refused[n].set()

    peer.on("tools/call", asks)
    peer.on("answer", refuse, refuse, wire.status(202))
    person = Counting()
    async with client_of(peer, policy, mode=LEGACY, elicitation_callback=person) as client:
        await client.call_tool("look")
    given = [(seen.id, seen.body["result"]["content"]["name"]) for seen in peer.of("answer")]
    assert given == [("id-1", "1"), ("id-2", "2"), ("id-3", "3")]


@pytest.mark.parametrize("named", [True, False], ids=["with a session id", "without one"])
async def test_the_same_words_under_an_old_id_are_answered_in_their_order(
    peer: Peer, policy: Policy, named: bool
) -> None:
    peer.on("initialize", opened("one") if named else wire.result(wire.INITIALIZE))
    peer.on("tools/list", wire.result(READ_ONLY_LEGACY))
    peer.on("tools/call", asks_and_breaks(peer, 0), asks_in_turn(peer, 0, 1))
    person = Counting()
    async with client_of(peer, policy, mode=LEGACY, elicitation_callback=person) as client:
        await client.call_tool("look")
    given = [seen.body["result"]["content"]["name"] for seen in peer.of("answer")]
    assert given == ["1", "1", "2"]
    assert person.asked == 2


async def test_one_question_that_fails_disturbs_no_other_of_its_round(peer: Peer, policy: Policy) -> None:
    both = {"bad": question("bad?"), "good": question("good?")}
    peer.on(
        "tools/call",
        wire.result({"resultType": "input_required", "inputRequests": both, "requestState": "s"}),
        wire.result(TEXT),
    )
    asked: list[str] = []
    failed = anyio.Event()

    async def answer(context: Any, params: Any) -> ElicitResult:
        asked.append(params.message)
        if params.message == "bad?" and asked.count("bad?") == 1:
            failed.set()
            raise ValueError("the form broke")
        await failed.wait()
        await anyio.wait_all_tasks_blocked()
        return ElicitResult(action="accept", content={"name": "x"})

    async with client_of(peer, policy, elicitation_callback=answer) as client:
        with pytest.raises(ValueError, match="the form broke"):
            await client.call_tool("look")
        assert text_of(await client.call_tool("look")) == "done"
    assert sorted(asked) == ["bad?", "bad?", "good?"]


async def test_an_answer_is_kept_where_another_question_of_its_round_can_not_be_asked(
    peer: Peer, policy: Policy
) -> None:
    both = {"roots": {"method": "roots/list"}, "good": question("good?")}
    asking = wire.result({"resultType": "input_required", "inputRequests": both, "requestState": "s"})
    peer.on("tools/call", asking, wire.result(TEXT))
    person = Person()
    async with client_of(peer, policy, elicitation_callback=person) as client:
        for _ in range(2):
            with pytest.raises(MCPError, match="not supported"):
                await client.call_tool("look")
    assert person.asked == ["good?"]
    assert len(peer.of("tools/call")) == 1


async def test_a_silent_stream_that_breaks_while_a_person_thinks_is_taken_up_again(peer: Peer) -> None:
    hasty = Policy(first_delay=0.001, max_delay=0.001, give_up_after=0.05, silence=30.0, quiet=30.0)
    thought = anyio.Event()

    async def silent(connection: wire.Connection) -> None:
        await connection.head(200, "content-type: text/event-stream")
        await connection.chunk(wire.frame(question("who?", "w1"), "1"))
        await thought.wait()
        connection.reset()

    def rest(seen: wire.Seen) -> bytes:
        return wire.frame({"jsonrpc": "2.0", "id": peer.of("tools/call")[0].id, "result": ANSWER}, "2")

    async def resumed(connection: wire.Connection) -> None:
        if "last-event-id" not in connection.seen.headers:
            await wire.status(405)(connection)
            return
        person.ready.set()
        await peer.until("answer")
        await wire.stream(rest)(connection)

    peer.on("tools/call", silent)
    peer.on("GET", resumed)
    person = Person(ready=anyio.Event())
    async with client_of(peer, hasty, mode=LEGACY, elicitation_callback=person) as client:

        async def think() -> None:
            await person.being_asked.wait()
            began = time.monotonic()
            while time.monotonic() - began < 0.1:
                await client.session.send_ping()
            thought.set()

        async with anyio.create_task_group() as group:
            group.start_soon(think)
            assert text_of(await client.call_tool("look")) == "done"
    assert person.asked == ["who?"]


async def test_answers_to_rounds_that_the_server_forgot_are_kept_for_the_next_equal_call(
    peer: Peer, policy: Policy
) -> None:
    forgotten = wire.error(-32602, "Invalid or expired requestState", http=400)
    peer.on("tools/list", wire.result(UNDECLARED))
    peer.on("tools/call", asking("who?"), forgotten, asking("who?", "state-2"), wire.result(TEXT))
    person = Person()
    async with client_of(peer, policy, elicitation_callback=person) as client:
        with pytest.raises(MCPError, match="expired requestState"):
            await client.call_tool("look")
        assert text_of(await client.call_tool("look")) == "done"
        assert not client.pending()
    assert person.asked == ["who?"]
    assert "requestState" not in peer.of("tools/call")[2].params
    assert peer.of("tools/call")[3].params["requestState"] == "state-2"


async def test_a_call_that_asks_without_end_on_its_stream_is_ended(peer: Peer, policy: Policy) -> None:
    asked = [wire.frame(question(f"{n}?", f"q-{n}")) for n in range(6)]
    peer.on("tools/call", wire.stream(*asked, end=False))
    person = Person()
    async with client_of(peer, policy, mode=LEGACY, elicitation_callback=person, input_required_max_rounds=3) as client:
        with pytest.raises(OutcomeUnknown, match=r"act asked more than 3 times \(input_required_max_rounds\)"):
            await client.call_tool("act")
        await peer.until("notifications/cancelled")
    assert len(person.asked) == 3
