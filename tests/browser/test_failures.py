"""Failures at every place of a call from a page: what is made again, what is unknown, and what is given up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from browser.acting import HASTE, SHORT, acted, handshake, modern, text
from browser.conftest import LIMIT, Tab
from browser.peer import Asked, Out, Peer, said

MODERN_ASK = {"method": "elicitation/create", "params": {"message": "Sure?", "requestedSchema": {"properties": {}}}}


@pytest.mark.parametrize("trouble", [503, 429, 500, 502, 504, "reset", "cut"])
async def test_one_failure_at_the_probe_never_downgrades(page: Tab, peer: Peer, trouble: Any) -> None:
    modern(peer, lambda asked, out: out.result(asked, said("modern")))
    healthy = peer.script

    async def first_ill(asked: Asked, out: Out) -> None:
        assert healthy is not None
        if len(peer.asked) > 1:
            await healthy(asked, out)
        elif trouble == "reset":
            out.reset()
        elif trouble == "cut":
            await out.head(200, "application/json", {"content-length": "500"})
            await out.put(b'{"jsonrpc"')
        else:
            await out.text(trouble, {"retry-after": "0"})

    peer.script = first_ill
    assert text(await acted(page)) == "modern"
    assert peer.rpcs()[:2] == ["server/discover", "server/discover"]
    assert "initialize" not in peer.rpcs()


async def test_a_server_that_is_down_for_good_is_not_taken_for_an_old_one(page: Tab, peer: Peer) -> None:
    async def down(asked: Asked, out: Out) -> None:
        await out.text(503)

    peer.script = down
    error = (await page.start(retry=SHORT))["error"]
    assert error["name"] == "NotSent"
    assert set(peer.rpcs()) == {"server/discover"}


async def test_401_is_an_error_of_its_own_and_what_was_pending_goes_on_afterwards(page: Tab, peer: Peer) -> None:
    async def call(asked: Asked, out: Out) -> None:
        if asked.headers.get("authorization") == "Bearer fresh":
            await out.result(asked, said(f"state {asked.body['params'].get('requestState')}"))
        elif "requestState" in asked.body["params"]:
            await out.text(401, {"www-authenticate": 'Bearer realm="x"'})
        else:
            asks = {"k": MODERN_ASK}
            await out.result(asked, {"resultType": "input_required", "inputRequests": asks, "requestState": "s1"})

    modern(peer, call, _meta={"milepost/lane": "stateful"})
    error = (await acted(page, answers={}))["error"]
    assert (error["name"], error["challenge"], error["status"]) == ("Unauthorized", 'Bearer realm="x"', 401)
    assert peer.rpcs().count("tools/call") == 2
    await page.run("() => { lab.outcomes = []; lab.events = []; }")
    await page.start(retry=SHORT, answers={}, headers={"Authorization": "Bearer fresh"})
    assert len(await page.resume()) == 1
    assert text(await page.outcome()) == "state s1"
    assert await page.events("question") == []


@pytest.mark.parametrize("way", ["reset", "headers", "stream", "json"])
@pytest.mark.parametrize("era", [modern, handshake])
async def test_a_call_that_breaks_anywhere_is_made_once_where_nothing_allows_more(
    page: Tab, peer: Peer, era: Any, way: str
) -> None:
    era(peer, lambda asked, out: broken(way, out))
    error = (await acted(page))["error"]
    assert error["name"] == "OutcomeUnknown"
    assert error["callId"]
    assert peer.rpcs().count("tools/call") == 1


@pytest.mark.parametrize("era", [modern, handshake])
async def test_a_call_that_may_be_made_again_is_under_a_new_id_and_the_same_call_id(
    page: Tab, peer: Peer, era: Any
) -> None:
    ways = iter(["reset", "headers", "stream", "json"])

    async def call(asked: Asked, out: Out) -> None:
        way = next(ways, None)
        await (broken(way, out) if way else out.result(asked, said("done")))

    era(peer, call, _meta={"milepost/lane": "stateful"})
    assert text(await acted(page, retry=HASTE)) == "done"
    calls = [asked.body for asked in peer.asked if asked.rpc == "tools/call"]
    assert len({one["id"] for one in calls}) == len(calls) == 5
    metas = [one["params"]["_meta"] for one in calls]
    assert len({meta["milepost/call_id"] for meta in metas}) == 1
    assert len({meta["traceparent"].split("-")[1] for meta in metas}) == 1
    assert len({meta["traceparent"] for meta in metas}) == 5


async def broken(way: str, out: Out) -> None:
    if way == "headers":
        await out.head(200, "application/json", {"content-length": "100"})
    elif way == "stream":
        await out.stream()
        await out.put(b'data: {"jsonrpc": "2.0", "id"')
    elif way == "json":
        await out.head(200, "application/json", {"content-length": "100"})
        await out.put(b'{"jsonrpc": "2.0"')
    out.reset()


async def test_a_call_that_was_surely_not_taken_is_made_again_whatever_it_is(page: Tab, peer: Peer) -> None:
    full = iter([503, 429])

    async def call(asked: Asked, out: Out) -> None:
        status = next(full, None)
        await (out.text(status) if status else out.result(asked, said("at last")))

    modern(peer, call)
    assert text(await acted(page)) == "at last"
    assert peer.rpcs().count("tools/call") == 3


async def test_a_callers_word_makes_a_call_safe_to_make_again(page: Tab, peer: Peer) -> None:
    breaks = iter([True])

    async def call(asked: Asked, out: Out) -> None:
        if next(breaks, False):
            out.reset()
        else:
            await out.result(asked, said("twice"))

    modern(peer, call)
    await page.start(retry=SHORT)
    await page.call("act", {}, reissue=True)
    assert text(await page.outcome()) == "twice"


async def test_an_unknown_outcome_carries_the_answers_to_go_on_with(page: Tab, peer: Peer) -> None:
    breaks = iter([True])

    async def call(asked: Asked, out: Out) -> None:
        params = asked.body["params"]
        if "requestState" not in params:
            asks = {"k": MODERN_ASK}
            await out.result(asked, {"resultType": "input_required", "inputRequests": asks, "requestState": "s1"})
        elif next(breaks, False):
            out.reset()
        else:
            await out.result(asked, said(f"{params['requestState']} {params['inputResponses']['k']['action']}"))

    modern(peer, call)
    error = (await acted(page, answers={}))["error"]
    assert error["kept"] == {"state": "s1", "answers": {"k": {"action": "accept", "content": {}}}}
    await page.call("act", {}, kept=error["kept"], reissue=True)
    assert text(await page.outcome(1)) == "s1 accept"
    assert len(await page.events("question")) == 1


async def test_an_answer_is_sent_until_it_is_acknowledged(page: Tab, peer: Peer) -> None:
    """Lost, refused for want of room, and failed, in turn; the person is asked once."""
    troubles: Any = iter(["reset", 503, 502])
    taken = asyncio.Event()

    async def call(asked: Asked, out: Out) -> None:
        if asked.rpc == "tools/call":
            await out.stream()
            question = {"jsonrpc": "2.0", "id": 7, **MODERN_ASK}
            await out.event(question)
            await out.event(question)
            await asyncio.wait_for(taken.wait(), LIMIT)
            await out.event({"jsonrpc": "2.0", "id": asked.id, "result": said("thanks")})
            return
        trouble = next(troubles, None)
        if trouble == "reset":
            out.reset()
        elif trouble:
            await out.text(trouble)
        else:
            await out.text(202)
            taken.set()

    handshake(peer, call)
    assert text(await acted(page, answers={}, retry=HASTE)) == "thanks"
    assert len(await page.events("question")) == 1
    answers = [asked.body for asked in peer.asked if asked.rpc == "" and asked.method == "POST"]
    assert answers == [{"jsonrpc": "2.0", "id": 7, "result": {"action": "accept", "content": {}}}] * 4


async def test_a_stream_is_read_on_from_its_last_event_even_if_the_call_may_not_be_made_again(
    page: Tab, peer: Peer
) -> None:
    async def call(asked: Asked, out: Out) -> None:
        await out.stream()
        if asked.rpc == "tools/call":
            await out.event(None, id="e-0", retry=1)
            out.reset()
        elif asked.headers["last-event-id"] == "e-0":
            await out.event({"jsonrpc": "2.0", "method": "notifications/message", "params": {}}, id="e-1")
        else:
            call_id = next(one.id for one in peer.asked if one.rpc == "tools/call")
            await out.event({"jsonrpc": "2.0", "id": call_id, "result": said(asked.headers["last-event-id"])})

    handshake(peer, call)
    assert text(await acted(page)) == "e-1"
    assert peer.rpcs().count("tools/call") == 1


async def test_a_session_that_is_gone_ends_a_call_that_may_not_be_made_again_with_what_is_known(
    page: Tab, peer: Peer
) -> None:
    async def call(asked: Asked, out: Out) -> None:
        if asked.method == "GET":
            await out.json({"jsonrpc": "2.0", "id": None, "error": {"code": -32600, "message": "gone"}}, 404)
            return
        await out.stream()
        await out.event(None, id="e-0", retry=1)

    handshake(peer, call)
    assert (await acted(page))["error"]["name"] == "OutcomeUnknown"
    assert peer.rpcs().count("tools/call") == 1
    assert len(await page.events("reinitialized")) == 1


async def test_a_call_that_meets_a_forgotten_session_is_made_on_a_new_one_whatever_it_is(page: Tab, peer: Peer) -> None:
    forgotten = iter([True])

    async def call(asked: Asked, out: Out) -> None:
        if next(forgotten, False):
            await out.json({"jsonrpc": "2.0", "id": asked.id, "error": {"code": -32600, "message": "gone"}}, 404)
        else:
            await out.result(asked, said("anew"))

    handshake(peer, call)
    assert text(await acted(page)) == "anew"
    assert peer.rpcs().count("initialize") == 2


async def test_a_server_that_forgets_every_session_at_once_is_left(page: Tab, peer: Peer) -> None:
    async def call(asked: Asked, out: Out) -> None:
        await out.json({"jsonrpc": "2.0", "id": asked.id, "error": {"code": -32600, "message": "gone"}}, 404)

    handshake(peer, call)
    error = (await acted(page))["error"]
    assert (error["name"], "forgets each session" in error["message"]) == ("Refused", True)
    assert peer.rpcs().count("initialize") == 6


async def test_a_stream_that_can_be_come_back_to_is_left_when_nothing_is_heard_of_it(page: Tab, peer: Peer) -> None:
    never = asyncio.Event()

    async def call(asked: Asked, out: Out) -> None:
        await out.stream()
        if asked.rpc == "tools/call":
            await out.event(None, id="e-0", retry=1)
            await never.wait()
        call_id = next(one.id for one in peer.asked if one.rpc == "tools/call")
        await out.event({"jsonrpc": "2.0", "id": call_id, "result": said("came back")})

    handshake(peer, call)
    assert text(await acted(page, silence=200, retry=HASTE)) == "came back"
    assert peer.rpcs().count("tools/call") == 1


async def test_a_connection_of_which_nothing_is_heard_is_given_up_and_taken_up_again(page: Tab, peer: Peer) -> None:
    calls = iter([True])
    never = asyncio.Event()

    async def call(asked: Asked, out: Out) -> None:
        if next(calls, False):
            await out.stream()
            await never.wait()
        await out.result(asked, said("heard"))

    modern(peer, call, annotations={"idempotentHint": True})
    assert text(await acted(page, silence=200, retry=HASTE)) == "heard"
    assert peer.rpcs().count("tools/call") >= 2
    assert await page.events("reconnected")
