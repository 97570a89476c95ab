"""The modern era: what is sent again, what never is, and what its caller is told."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest
from mcp import MCPError

from client import peer as wire
from client.peer import TEXT, Peer
from client.talking import MODERN, Person, client_of, events_of, question, text_of
from milepost.client import Client, NotSent, OutcomeUnknown, Policy, Refused, ServerUnavailable, Unauthorized
from milepost.client.events import GaveUp, Retrying
from milepost.client.origins import Origins
from milepost.client.retrying import Circuit

pytestmark = pytest.mark.anyio

READ_ONLY = wire.tools({"name": "look", "annotations": {"readOnlyHint": True}})
WORKFLOW = wire.tools({"name": "look", "_meta": {"milepost/lane": "stateful"}})
UNDECLARED = wire.tools({"name": "look"})


async def test_a_dropped_call_of_a_read_only_tool_is_sent_again_under_a_new_id(peer: Peer, policy: Policy) -> None:
    peer.on("tools/list", wire.result(READ_ONLY))
    peer.on("tools/call", wire.drop, wire.result(TEXT))
    async with client_of(peer, policy) as client:
        assert text_of(await client.call_tool("look")) == "done"
    first, second = peer.of("tools/call")
    assert first.id != second.id
    assert first.meta["milepost/call_id"] == second.meta["milepost/call_id"]


async def test_a_dropped_call_of_a_workflow_is_sent_again_with_its_call_id(peer: Peer, policy: Policy) -> None:
    peer.on("tools/list", wire.result(WORKFLOW))
    peer.on("tools/call", wire.stream(wire.frame({"jsonrpc": "2.0", "method": "x"}), reset=True), wire.result(TEXT))
    async with client_of(peer, policy) as client:
        await client.call_tool("look")
        await client.call_tool("look")
    first, second, third = (seen.meta["milepost/call_id"] for seen in peer.of("tools/call"))
    assert first == second != third


@pytest.mark.parametrize("strike", [wire.drop, wire.status(500), wire.status(502), wire.status(503), wire.status(504)])
async def test_a_call_that_may_have_had_effects_is_never_sent_again(
    peer: Peer, policy: Policy, strike: wire.Answer
) -> None:
    peer.on("tools/list", wire.result(UNDECLARED))
    peer.on("tools/call", strike)
    async with client_of(peer, policy) as client, events_of(client) as told:
        with pytest.raises(OutcomeUnknown, match="its outcome is unknown"):
            await client.call_tool("look")
    assert len(peer.of("tools/call")) == 1
    assert [event.known for event in told if isinstance(event, GaveUp)] == ["unknown"]


async def test_the_caller_may_say_that_a_call_can_be_sent_again_or_never(peer: Peer, policy: Policy) -> None:
    peer.on("tools/list", wire.result(READ_ONLY))
    peer.on("tools/call", wire.drop, wire.result(TEXT))
    async with client_of(peer, policy) as client:
        assert text_of(await client.call_tool("other", reissue=True)) == "done"
        peer.on("tools/call", wire.drop)
        with pytest.raises(OutcomeUnknown):
            await client.call_tool("look", reissue=False)
    assert len(peer.of("tools/call")) == 3


@pytest.mark.parametrize(
    "busy",
    [
        wire.status(429, "retry-after: 0"),
        wire.status(503, "retry-after: 0"),
        wire.error(-32000, "too many sessions", http=503),
    ],
)
async def test_a_server_that_says_it_did_nothing_is_asked_again(peer: Peer, policy: Policy, busy: wire.Answer) -> None:
    peer.on("tools/call", busy, busy, wire.result(TEXT))
    async with client_of(peer, policy) as client, events_of(client) as told:
        assert text_of(await client.call_tool("look")) == "done"
    assert len([event for event in told if isinstance(event, Retrying)]) == 2


async def test_a_call_that_can_not_be_sent_says_so(policy: Policy) -> None:
    async with wire.listening() as gone:
        url = gone.url
    hasty = Policy(first_delay=0.01, max_delay=0.01, give_up_after=0.05, breaker_failures=99)
    async with client_of(url, hasty) as client:
        with pytest.raises(NotSent, match="was not sent"):
            await client.call_tool("look")


async def test_what_was_unknown_once_stays_unknown_however_later_tries_fail(peer: Peer) -> None:
    hasty = Policy(first_delay=0.01, max_delay=0.01, give_up_after=0.3)
    peer.on("tools/list", wire.result(READ_ONLY))
    peer.on("tools/call", wire.drop, wire.status(429))
    async with client_of(peer, hasty) as client:
        with pytest.raises(OutcomeUnknown):
            await client.call_tool("look")


async def test_a_401_is_never_retried(peer: Peer, policy: Policy) -> None:
    peer.on("tools/call", wire.status(401, "www-authenticate: Bearer"))
    async with client_of(peer, policy) as client:
        with pytest.raises(Unauthorized) as caught:
            await client.call_tool("look")
    assert caught.value.status == 401
    assert len(peer.of("tools/call")) == 1


async def test_the_servers_own_error_is_its_own(peer: Peer, policy: Policy) -> None:
    peer.on("tools/call", wire.error(-32602, "no such tool", http=400, data={"near": "hook"}))
    async with client_of(peer, policy) as client:
        with pytest.raises(MCPError, match="no such tool") as caught:
            await client.call_tool("look")
    assert (caught.value.code, caught.value.data) == (-32602, {"near": "hook"})


# --- the era -------------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", [wire.status(503), wire.status(429), wire.status(502), wire.status(500), wire.drop])
async def test_one_transient_failure_of_the_probe_does_not_downgrade(
    peer: Peer, policy: Policy, origins: Origins, trouble: wire.Answer
) -> None:
    peer.on("server/discover", trouble, wire.result(wire.DISCOVER))
    async with client_of(peer, policy, origins, mode="auto") as client:
        assert client.protocol_version == MODERN
    assert not peer.of("initialize")


async def test_a_server_that_knows_no_discover_is_remembered(peer: Peer, policy: Policy, origins: Origins) -> None:
    peer.on("server/discover", wire.status(400))
    for _ in range(2):
        async with client_of(peer, policy, origins, mode="auto") as client:
            assert client.protocol_version == "2025-11-25"
    assert len(peer.of("server/discover")) == 1
    assert len(peer.of("initialize")) == 2


async def test_a_server_that_stays_away_is_no_older_server(peer: Peer, origins: Origins) -> None:
    hasty = Policy(first_delay=0.01, max_delay=0.01, give_up_after=0.1)
    peer.on("server/discover", wire.status(503))
    with pytest.raises(ServerUnavailable, match="503"):
        async with Client(peer.url, policy=hasty, origins=origins):
            pytest.fail("nobody is there")
    assert not peer.of("initialize")


# --- rounds --------------------------------------------------------------------------------------


def asking(message: str, state: str = "state-1", key: str = "k") -> wire.Answer:
    return wire.result(
        {"resultType": "input_required", "inputRequests": {key: question(message)}, "requestState": state}
    )


async def test_a_503_on_the_answers_way_asks_nobody_twice(peer: Peer, policy: Policy) -> None:
    peer.on("tools/call", asking("who?"), wire.status(503, "retry-after: 0"), wire.result(TEXT))
    person = Person()
    async with client_of(peer, policy, elicitation_callback=person) as client:
        await client.call_tool("look")
    _, second, third = peer.of("tools/call")
    assert person.asked == ["who?"]
    assert second.params["inputResponses"] == third.params["inputResponses"]
    assert third.params["requestState"] == "state-1"


async def test_an_answer_outlives_the_call_that_failed_and_is_given_to_the_next_equal_one(
    peer: Peer, policy: Policy
) -> None:
    peer.on("tools/list", wire.result(UNDECLARED))
    peer.on("tools/call", asking("who?"), wire.drop, wire.result(TEXT))
    person = Person()
    async with client_of(peer, policy, elicitation_callback=person) as client:
        with pytest.raises(OutcomeUnknown):
            await client.call_tool("look", {"at": 1})
        assert [one.name for one in client.pending()] == ["look"]
        await client.call_tool("look", {"at": 1}, meta={"traceparent": "00-" + "a" * 32 + "-" + "b" * 16 + "-01"})
        assert not client.pending()
    assert person.asked == ["who?"]
    assert peer.of("tools/call")[2].params["requestState"] == "state-1"


async def test_a_state_that_the_server_has_forgotten_starts_a_harmless_call_over_and_asks_nobody(
    peer: Peer, policy: Policy
) -> None:
    forgotten = wire.error(-32602, "Invalid or expired requestState", http=400)
    peer.on("tools/list", wire.result(READ_ONLY))
    peer.on("tools/call", asking("who?"), forgotten, asking("who?", "state-2"), wire.result(TEXT))
    person = Person()
    async with client_of(peer, policy, elicitation_callback=person) as client:
        await client.call_tool("look")
    assert person.asked == ["who?"]
    assert peer.of("tools/call")[3].params["requestState"] == "state-2"


async def test_the_same_words_in_a_later_round_are_a_new_question(peer: Peer, policy: Policy) -> None:
    peer.on("tools/call", asking("again?"), asking("again?", "state-2"), wire.result(TEXT))
    person = Person()
    async with client_of(peer, policy, elicitation_callback=person) as client:
        await client.call_tool("look")
    assert person.asked == ["again?", "again?"]


async def test_a_server_that_is_not_done_yet_is_asked_until_it_is(peer: Peer, policy: Policy) -> None:
    not_yet = wire.result({"resultType": "input_required", "requestState": "s"})
    peer.on("tools/call", *[not_yet] * 15, wire.result(TEXT))
    async with client_of(peer, policy) as client:
        assert text_of(await client.call_tool("look")) == "done"
    assert len(peer.of("tools/call")) == 16


async def test_a_server_that_never_stops_asking_is_left(peer: Peer, policy: Policy) -> None:
    peer.on("tools/call", asking("more?"))
    async with client_of(peer, policy, elicitation_callback=Person(), input_required_max_rounds=3) as client:
        with pytest.raises(OutcomeUnknown, match="more than 3 rounds"):
            await client.call_tool("look")


# --- health --------------------------------------------------------------------------------------


async def test_a_server_that_fails_for_all_is_given_a_rest(peer: Peer, origins: Origins) -> None:
    tired = Policy(first_delay=0.001, max_delay=0.001, give_up_after=0.5, breaker_failures=3, breaker_rest=5.0)
    peer.on("tools/call", wire.status(429))
    async with client_of(peer, tired, origins) as client:
        with pytest.raises(MCPError):
            await client.call_tool("look")
        tries = len(peer.of("tools/call"))
        with pytest.raises(NotSent, match="left alone"):
            await client.call_tool("look")
    assert tries == len(peer.of("tools/call")) == 3


async def test_who_waits_for_a_server_that_is_well_again_waits_no_longer(peer: Peer, origins: Origins) -> None:
    tired = Policy(first_delay=0.001, breaker_failures=1, breaker_rest=0.05, breaker_max_rest=3600, give_up_after=1e6)
    async with client_of(peer, tired, origins) as client:
        breaker = origins.of(peer.url.removesuffix("/mcp"), tired).breaker
        breaker.state, breaker.until = Circuit.OPEN, anyio.current_time() + 3600
        async with anyio.create_task_group() as group:
            group.start_soon(client.call_tool, "look")
            await anyio.wait_all_tasks_blocked()
            breaker.succeeded()
            with anyio.fail_after(20):
                await peer.until("tools/call")


async def test_retries_stop_when_the_budget_is_spent(peer: Peer) -> None:
    poor = Policy(first_delay=0.001, max_delay=0.001, retry_budget=2.0, budget_per_second=0.0, breaker_failures=99)
    peer.on("tools/call", wire.status(429))
    async with client_of(peer, poor) as client:
        with pytest.raises(Refused):
            await client.call_tool("look")
    assert len(peer.of("tools/call")) == 3


async def test_no_redirect_leads_to_another_origin(peer: Peer, policy: Policy) -> None:
    async with wire.listening() as elsewhere:
        peer.on("tools/call", wire.status(307, f"location: {elsewhere.url}"))
        async with client_of(peer, policy, headers={"authorization": "Bearer secret"}) as client:
            with pytest.raises(Refused, match="redirects to"):
                await client.call_tool("look")
        assert not elsewhere.seen


async def test_a_redirect_within_the_origin_is_followed(peer: Peer, policy: Policy) -> None:
    peer.on("tools/call", wire.status(307, "location: /mcp/"), wire.result(TEXT))
    async with client_of(peer, policy) as client:
        assert text_of(await client.call_tool("look")) == "done"


async def test_a_subscription_goes_on_after_its_stream_broke(peer: Peer, policy: Policy) -> None:
    def acknowledged(seen: wire.Seen) -> bytes:
        meta = {"io.modelcontextprotocol/subscriptionId": seen.id}
        return wire.frame(
            {
                "jsonrpc": "2.0",
                "method": "notifications/subscriptions/acknowledged",
                "params": {"notifications": {"toolsListChanged": True}, "_meta": meta},
            }
        )

    peer.on("subscriptions/listen", wire.stream(acknowledged, reset=True), wire.stream(acknowledged, end=False))
    async with client_of(peer, policy) as client, client.listen(tools_list_changed=True) as heard:
        with anyio.fail_after(10):
            event = await anext(aiter(heard))
    assert type(event).__name__ == "ToolsListChanged"
    assert len(peer.of("subscriptions/listen")) == 2


async def test_a_client_that_is_told_to_use_the_older_protocol_remembers_nothing(
    peer: Peer, policy: Policy, origins: Origins
) -> None:
    async with client_of(peer, policy, origins, mode="legacy"):
        pass
    async with client_of(peer, policy, origins, mode="auto") as client:
        assert client.protocol_version == MODERN


async def test_the_era_of_a_server_is_remembered_in_the_journal(peer: Peer, policy: Policy, tmp_path: Path) -> None:
    peer.on("server/discover", wire.status(400))
    for _ in range(2):
        journal = f"sqlite:///{tmp_path / 'client.db'}"
        async with client_of(peer, policy, Origins(), mode="auto", journal=journal) as client:
            assert client.protocol_version == "2025-11-25"
    assert len(peer.of("server/discover")) == 1


@pytest.mark.parametrize("mode", [MODERN, "legacy"])
async def test_a_connection_is_used_again(peer: Peer, policy: Policy, mode: str) -> None:
    value = {"content": []} if mode == "legacy" else TEXT
    peer.on("tools/call", wire.result(value), wire.stream(wire.response(value)), wire.result(value))
    async with client_of(peer, policy, mode=mode) as client:
        for _ in range(4):
            await client.call_tool("look")
    assert peer.connections == (1 if mode == MODERN else 2)  # in the older era the session's own stream has one
