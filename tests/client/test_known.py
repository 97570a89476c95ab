"""What a caller is told is true, whatever fails beside its call or after it."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from mcp import StdioServerParameters

from client import peer as wire
from client.peer import TEXT, Peer
from client.talking import LEGACY, MODERN, Person, client_of, text_of
from client.test_handshake import ANSWER, GONE, WORKFLOW, opened
from client.test_modern import READ_ONLY, UNDECLARED, asking
from milepost.client import (
    CallError,
    CircuitOpen,
    Client,
    NotSent,
    OutcomeUnknown,
    Policy,
    Refused,
    TimedOut,
    unfinished,
)
from milepost.client.origins import Origins

pytestmark = pytest.mark.anyio


@pytest.fixture
def journal(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'client.db'}"


@pytest.mark.parametrize("mode", [MODERN, LEGACY])
async def test_a_call_that_was_done_is_done_also_where_its_tool_can_not_be_listed(peer: Peer, mode: str) -> None:
    peer.on("tools/list", wire.status(429), wire.drop)
    peer.on("tools/call", wire.result(TEXT if mode == MODERN else ANSWER))
    async with client_of(peer, Policy(), mode=mode) as client:
        assert text_of(await client.call_tool("look")) == "done"


async def test_a_caller_who_says_never_again_is_heard_also_where_an_earlier_call_is_gone_on_with(
    peer: Peer, policy: Policy
) -> None:
    peer.on("tools/list", wire.result(READ_ONLY))
    peer.on("tools/call", asking("who?"), wire.status(400), wire.drop, wire.result(TEXT))
    async with client_of(peer, policy, elicitation_callback=Person()) as client:
        with pytest.raises(Refused):
            await client.call_tool("look")
        with pytest.raises(OutcomeUnknown):
            await client.call_tool("look", reissue=False)
    assert len(peer.of("tools/call")) == 3


async def test_a_call_that_is_resumed_while_its_server_is_away_stays_pending(journal: str, policy: Policy) -> None:
    hasty = Policy(first_delay=0.001, max_delay=0.001, give_up_after=0.05)
    async with wire.listening() as peer:
        peer.on("tools/call", wire.drop)
        peer.on("tools/list", wire.drop)
        async with client_of(peer, hasty, journal=journal) as first:
            with pytest.raises(OutcomeUnknown):
                await first.call_tool("look")
    async with client_of(peer, hasty, journal=journal) as later:
        (ended,) = await later.resume()
        assert isinstance(ended.error, OutcomeUnknown)
        assert [one.name for one in later.pending()] == ["look"]


async def test_a_call_that_is_resumed_without_a_token_stays_pending(peer: Peer, journal: str, policy: Policy) -> None:
    peer.on("tools/call", wire.drop)
    peer.on("tools/list", wire.result(UNDECLARED))
    async with client_of(peer, policy, journal=journal) as first:
        with pytest.raises(OutcomeUnknown):
            await first.call_tool("look")
    peer.on("tools/list", wire.status(401))
    async with client_of(peer, policy, journal=journal) as later:
        await later.resume()
        assert [one.name for one in later.pending()] == ["look"]


async def test_a_call_that_was_sent_is_never_said_to_be_not_sent_when_it_is_resumed(peer: Peer, journal: str) -> None:
    policy = Policy(first_delay=0.001, max_delay=0.001, breaker_failures=1, breaker_rest=20.0, give_up_after=5.0)
    peer.on("tools/call", wire.drop)
    peer.on("tools/list", wire.result(UNDECLARED))
    async with client_of(peer, policy, journal=journal) as first:
        with pytest.raises(OutcomeUnknown):
            await first.call_tool("look")
    origins = Origins()
    peer.on("prompts/list", wire.status(429))
    async with client_of(peer, policy, origins, journal=journal) as later:
        with pytest.raises(Refused):
            await later.list_prompts()
        (ended,) = await later.resume()
        assert isinstance(ended.error, OutcomeUnknown)
        assert later.pending()


async def test_a_session_that_can_not_be_opened_anew_is_no_word_on_the_call(peer: Peer, policy: Policy) -> None:
    full = wire.error(-32000, "too many open sessions")
    peer.on("initialize", opened("one"), full, opened("two"))
    peer.on("tools/list", wire.result(WORKFLOW))
    peer.on("tools/call", GONE)
    async with client_of(peer, policy, mode=LEGACY) as client:
        with pytest.raises(Refused, match="too many open sessions") as caught:
            await client.call_tool("look")
        assert caught.value.call_id == peer.of("tools/call")[0].meta["milepost/call_id"]


async def test_a_caller_that_leaves_while_a_session_is_opened_anew_breaks_it_for_nobody(
    peer: Peer, policy: Policy
) -> None:
    async def only_the_last(connection: wire.Connection) -> None:
        is_ready = connection.seen.headers["mcp-session-id"] == "three"
        await (wire.result(ANSWER) if is_ready else wire.error(-32602, "not initialized"))(connection)

    peer.on("initialize", opened("one"), opened("two"), opened("three"))
    peer.on("notifications/initialized", wire.status(202), wire.hang, wire.status(202))
    peer.on("tools/call", GONE, only_the_last)
    async with client_of(peer, policy, mode=LEGACY) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(client.call_tool, "look")
            await peer.until("notifications/initialized", 2)
            group.cancel_scope.cancel()
        assert text_of(await client.call_tool("look")) == "done"
    assert len(peer.of("notifications/initialized")) == 3


async def test_a_result_is_given_also_where_its_end_can_not_be_written_down(
    peer: Peer, policy: Policy, tmp_path: Path
) -> None:
    journal = f"sqlite:///{tmp_path / 'client.db'}"
    ready = anyio.Event()

    async def late(connection: wire.Connection) -> None:
        await ready.wait()
        await wire.result(TEXT)(connection)

    peer.on("tools/call", late)
    texts: list[str] = []
    async with client_of(peer, policy, journal=journal) as client:

        async def call() -> None:
            texts.append(text_of(await client.call_tool("look")))

        async with anyio.create_task_group() as group:
            group.start_soon(call)
            await peer.until("tools/call")
            books = client._books
            assert books is not None
            books.close()  # the disk is full
            ready.set()
    assert texts == ["done"]
    assert [one.name for one in unfinished(journal)] == ["look"]


async def test_a_request_that_can_not_be_written_was_not_sent_and_its_token_is_not_told(
    peer: Peer, policy: Policy
) -> None:
    async with client_of(peer, policy, headers={"authorization": "Bearer s3cret\n"}) as client:
        with pytest.raises(NotSent) as caught:
            await client.call_tool("look")
    assert "s3cret" not in str(caught.value)
    assert "header" in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        NotSent("no", call_id="c"),
        CircuitOpen("no", call_id="c", retry_after=3.0),
        TimedOut("late", call_id="c", known="refused"),
    ],
)
def test_an_error_can_be_sent_to_another_process(error: CallError) -> None:
    again = pickle.loads(pickle.dumps(error))  # noqa: S301  our own
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_what_a_client_is_printed_as_holds_no_secret() -> None:
    shown = repr(Client("http://me:pass@h/mcp?key=k1", headers={"authorization": "Bearer tok"}))
    assert shown == "Client('http://h/mcp')"
    child = StdioServerParameters(command="server", args=["--key", "k1"], env={"TOKEN": "tok"})
    assert repr(Client(child)) == "Client('server')"


async def test_entering_a_client_twice_harms_nothing(peer: Peer, policy: Policy, journal: str) -> None:
    async with client_of(peer, policy, journal=journal) as client:
        with pytest.raises(RuntimeError, match="already entered"):
            await client.__aenter__()
        assert text_of(await client.call_tool("look")) == "done"


async def test_calls_that_go_on_when_their_client_is_closed_end_with_it(peer: Peer, policy: Policy) -> None:
    peer.on("tools/call", wire.hang)
    ended: list[Exception] = []
    async with anyio.create_task_group() as group:
        async with client_of(peer, policy) as client:

            async def call(name: str) -> None:
                try:
                    await client.call_tool(name)
                except Exception as exc:
                    ended.append(exc)

            group.start_soon(call, "look")
            group.start_soon(call, "hook")
            await peer.until("tools/call", 2)
        with anyio.fail_after(5):
            while len(ended) < 2:
                await anyio.wait_all_tasks_blocked()
    assert [type(one) for one in ended] == [OutcomeUnknown, OutcomeUnknown]


async def test_what_a_tool_declared_before_the_trouble_counts_no_more(peer: Peer, policy: Policy) -> None:
    peer.on("tools/list", wire.result(READ_ONLY), wire.result(UNDECLARED))
    peer.on("tools/call", wire.drop)
    async with client_of(peer, policy) as client:
        await client.list_tools()  # another build is deployed then
        with pytest.raises(OutcomeUnknown):
            await client.call_tool("look")
    assert len(peer.of("tools/call")) == 1


async def test_an_answer_that_was_on_its_way_when_time_was_up_goes_with_the_next_equal_call(
    peer: Peer, policy: Policy
) -> None:
    peer.on("tools/list", wire.result(UNDECLARED))
    peer.on("tools/call", asking("who?"), wire.hang, wire.result(TEXT))
    person = Person()
    patient = replace(policy, quiet=30.0)
    async with client_of(peer, patient, elicitation_callback=person) as client:
        with pytest.raises(TimedOut, match=r"tools/call look timed out after 0\.2 s of work") as caught:
            await client.call_tool("look", read_timeout_seconds=0.2)
        assert caught.value.known == "unknown"
        assert [one.call_id for one in client.pending()] == [caught.value.call_id]
        assert text_of(await client.call_tool("look", read_timeout_seconds=20)) == "done"
        assert client.pending() == []
    _, second, third = peer.of("tools/call")
    assert person.asked == ["who?"]
    assert second.params["inputResponses"] == third.params["inputResponses"]
    assert second.meta["milepost/call_id"] == third.meta["milepost/call_id"]


@pytest.mark.parametrize("mode", [MODERN, LEGACY])
async def test_a_call_that_ran_out_of_time_before_it_was_taken_says_so(peer: Peer, policy: Policy, mode: str) -> None:
    peer.on("tools/call", wire.status(503, "retry-after: 5"))
    async with client_of(peer, policy, mode=mode) as client:
        with pytest.raises(TimedOut) as caught:
            await client.call_tool("look", read_timeout_seconds=1.0)
        assert caught.value.known == "refused"
        assert client.pending() == []


async def test_a_handshake_server_that_was_told_has_nothing_to_go_on_with(peer: Peer, policy: Policy) -> None:
    peer.on("tools/call", wire.stream(wire.frame("", "s.0"), end=False))
    async with client_of(peer, policy, mode=LEGACY) as client:
        with pytest.raises(TimedOut):
            await client.call_tool("look", read_timeout_seconds=0.1)
        await peer.until("notifications/cancelled")
        assert client.pending() == []
