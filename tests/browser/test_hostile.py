"""Servers that misbehave, by design or by accident, against the client in a page: what it holds, hears, and says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from browser.acting import SHORT, SMALL, acted, handshake, modern, text
from browser.conftest import LIMIT, Tab
from browser.peer import Asked, Out, Peer, peering, said

MODERN_ASK = {"method": "elicitation/create", "params": {"message": "Sure?", "requestedSchema": {"properties": {}}}}


# --- what it holds --------------------------------------------------------------------------------


async def endless(asked: Asked, out: Out) -> None:
    await out.stream()
    await out.put(b"data: ")
    while True:
        await out.put(b"x" * 16_384)


async def many_lines(asked: Asked, out: Out) -> None:
    await out.stream()
    while True:
        await out.put(b"data: y\n" * 1000)


async def huge_json(asked: Asked, out: Out) -> None:
    await out.head(200, "application/json")
    await out.put(b'{"a": "')
    while True:
        await out.put(b"x" * 16_384)


@pytest.mark.parametrize("flood", [endless, many_lines, huge_json])
async def test_a_message_without_end_is_cut_off_and_not_asked_for_again(page: Tab, peer: Peer, flood: Any) -> None:
    modern(peer, flood, annotations={"readOnlyHint": True})
    error = (await acted(page))["error"]
    assert error["name"] == "BadPeer"
    assert str(SMALL) in error["message"]
    assert peer.rpcs().count("tools/call") == 1
    async with asyncio.timeout(LIMIT):
        await peer.outs[-1].cut.wait()


async def test_more_questions_at_once_than_anybody_answers_are_refused(page: Tab, peer: Peer) -> None:
    async def call(asked: Asked, out: Out) -> None:
        asks = {f"k{n}": MODERN_ASK for n in range(100)}
        await out.result(asked, {"resultType": "input_required", "inputRequests": asks, "requestState": "s"})

    modern(peer, call)
    assert (await acted(page))["error"]["name"] == "BadPeer"


async def test_a_server_that_only_says_not_yet_is_left_after_the_budget(page: Tab, peer: Peer) -> None:
    async def call(asked: Asked, out: Out) -> None:
        await out.result(asked, {"resultType": "input_required", "requestState": "again"})

    modern(peer, call)
    error = (await acted(page))["error"]
    assert "not yet" in error["message"]
    assert peer.rpcs().count("tools/call") == 1 + SHORT["budget"]


# --- what it listens to ---------------------------------------------------------------------------


async def test_messages_for_others_are_nobodys_business(page: Tab, peer: Peer) -> None:
    async def call(asked: Asked, out: Out) -> None:
        await out.stream()
        for wrong in ("other", 1, None, [asked.id], {}, True):
            await out.event({"jsonrpc": "2.0", "id": wrong, "result": said("wrong")})
        await out.event([{"jsonrpc": "2.0", "id": asked.id, "result": said("in a batch")}])
        await out.event("text")
        progress = {"progressToken": "another", "progress": 1}
        await out.event({"jsonrpc": "2.0", "method": "notifications/progress", "params": progress})
        await out.event({"jsonrpc": "2.0", "id": asked.id, "result": said("right")})

    modern(peer, call)
    assert text(await acted(page)) == "right"
    assert await page.run("() => lab.progress") == []


@pytest.mark.parametrize("reply", ["<html>", "[1, 2]", '"x"', "null", '{"jsonrpc": "2.0"}'])
async def test_an_answer_that_is_no_answer_ends_in_unknown(page: Tab, peer: Peer, reply: str) -> None:
    async def call(asked: Asked, out: Out) -> None:
        await out.head(200, "text/html" if reply == "<html>" else "application/json")
        await out.put(reply.encode())

    modern(peer, call)
    assert (await acted(page))["error"]["name"] in ("OutcomeUnknown", "BadPeer")
    assert peer.rpcs().count("tools/call") == 1


async def test_a_server_may_not_ask_what_was_never_offered(page: Tab, peer: Peer) -> None:
    async def call(asked: Asked, out: Out) -> None:
        asks = {"k": {"method": "sampling/createMessage", "params": {}}}
        await out.result(asked, {"resultType": "input_required", "inputRequests": asks})

    modern(peer, call)
    error = (await acted(page))["error"]
    assert (error["name"], "never offered" in error["message"]) == ("BadPeer", True)


async def test_a_handshake_server_that_asks_what_was_never_offered_is_told_so(page: Tab, peer: Peer) -> None:
    answers: asyncio.Queue[Any] = asyncio.Queue()

    async def call(asked: Asked, out: Out) -> None:
        if asked.rpc == "":
            await answers.put(asked.body)
            await out.text(202)
            return
        await out.stream()
        for n, method in enumerate(["sampling/createMessage", "ping", "tools/list"]):
            await out.event({"jsonrpc": "2.0", "id": n, "method": method})
        got = [await asyncio.wait_for(answers.get(), LIMIT) for _ in range(3)]
        codes = {one["id"]: one.get("error", {}).get("code") for one in got}
        await out.event({"jsonrpc": "2.0", "id": asked.id, "result": said(str([codes[n] for n in range(3)]))})

    handshake(peer, call)
    assert text(await acted(page)) == "[-32601, None, -32601]"


# --- what it says, and where ----------------------------------------------------------------------


@pytest.mark.parametrize("session", ["a b", "ü", "a\x01b", "x" * 2000])
async def test_a_session_id_that_is_not_visible_ascii_is_refused(page: Tab, peer: Peer, session: str) -> None:
    handshake(peer, None, session=session)
    assert "error" in await acted(page)
    assert all("mcp-session-id" not in asked.headers for asked in peer.asked)


@pytest.fixture
async def elsewhere() -> AsyncIterator[Peer]:
    """Another origin."""
    async with peering() as other:
        yield other


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_no_redirect_is_followed(page: Tab, peer: Peer, elsewhere: Peer, status: int) -> None:
    async def take(asked: Asked, out: Out) -> None:
        await out.result(asked, said("stolen"))

    async def call(asked: Asked, out: Out) -> None:
        await out.text(status, {"location": f"{elsewhere.origin}/mcp"})

    elsewhere.script = take
    modern(peer, call, annotations={"readOnlyHint": True})
    error = (await acted(page, headers={"Authorization": "Bearer t"}))["error"]
    assert (error["name"], "redirects" in error["message"]) == ("Refused", True)
    assert elsewhere.asked == []


async def test_an_event_id_with_control_characters_is_never_sent_back(page: Tab, peer: Peer) -> None:
    async def call(asked: Asked, out: Out) -> None:
        if asked.method == "GET":
            await out.stream()
            await out.event({"jsonrpc": "2.0", "id": peer.asked[-2].id, "result": said(asked.headers["last-event-id"])})
            return
        await out.stream()
        await out.event({"jsonrpc": "2.0", "method": "notifications/message", "params": {}}, id="good-1", retry=1)
        await out.event({"jsonrpc": "2.0", "method": "notifications/message", "params": {}}, id="bad\x01id")
        await out.event({"jsonrpc": "2.0", "method": "notifications/message", "params": {}}, id="ü")

    handshake(peer, call)
    assert text(await acted(page)) == "good-1"
