"""A login takes a person's time: none of it is a server's silence, and none of it is lost."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator

import anyio.lowlevel
import httpx2
import pytest

from client import peer as wire
from client.peer import TEXT, Peer
from client.talking import MODERN, client_of, text_of
from milepost.client import Client, OutcomeUnknown, Policy
from milepost.client.origins import Origins

pytestmark = pytest.mark.anyio

HASTY = Policy(reach_within=0.2, silence=0.2, quiet=0.2, first_delay=0.01)


class Login(httpx2.Auth):
    """Logs in on a 401, which takes longer than any server may be silent."""

    logins = 0
    token = ""

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        request.headers["authorization"] = self.token
        response = yield request
        if response.status_code == 401:
            self.logins += 1
            await self.in_the_browser()
            await (yield httpx2.Request("POST", request.url.copy_with(path="/token"), json={"method": "token"})).aread()
            self.token = request.headers["authorization"] = "Bearer new"
            yield request

    async def in_the_browser(self) -> None:
        began = time.monotonic()
        while time.monotonic() - began < 0.4:
            await anyio.lowlevel.checkpoint()


def guarded(answer: wire.Answer) -> wire.Answer:
    async def check(connection: wire.Connection) -> None:
        is_in = connection.seen.headers.get("authorization") == "Bearer new"
        await (answer if is_in else wire.status(401))(connection)

    return check


async def test_a_login_at_the_first_contact_may_take_longer_than_the_contact(peer: Peer) -> None:
    peer.on("server/discover", guarded(wire.result(wire.DISCOVER)))
    auth = Login()
    async with Client(peer.url, auth=auth, policy=HASTY, origins=Origins()) as client:
        assert client.protocol_version == MODERN
    assert auth.logins == 1


async def test_a_login_in_a_call_burns_none_of_its_time(peer: Peer) -> None:
    peer.on("tools/call", guarded(wire.result(TEXT)))
    auth = Login()
    async with client_of(peer, HASTY, auth=auth) as client:
        assert text_of(await client.call_tool("look", read_timeout_seconds=0.3)) == "done"
    assert (auth.logins, len(peer.of("tools/call")), len(peer.of("token"))) == (1, 2, 1)


async def test_silence_after_a_login_is_silence(peer: Peer) -> None:
    peer.on("tools/call", guarded(wire.hang))
    async with client_of(peer, HASTY, auth=Login()) as client:
        with pytest.raises(OutcomeUnknown, match=r"nothing was heard for 0\.2 s"):
            await client.call_tool("look")


class Stubborn(httpx2.Auth):
    """Sends everything again that did not work."""

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        for _ in range(3):
            response = yield request
            if response.status_code < 400:
                return


@pytest.mark.parametrize(("status", "sent"), [(401, 2), (500, 1), (408, 1)])
async def test_an_auth_sends_nothing_again_that_may_have_been_done(peer: Peer, status: int, sent: int) -> None:
    peer.on("tools/call", wire.status(status), wire.result(TEXT))
    async with client_of(peer, HASTY, auth=Stubborn()) as client:
        if sent == 2:
            assert text_of(await client.call_tool("look")) == "done"
        else:
            with pytest.raises(OutcomeUnknown):
                await client.call_tool("look")
    assert len(peer.of("tools/call")) == sent
