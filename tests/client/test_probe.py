"""Which answers to the version probe are a no: the rest of them are in test_modern.py."""

from __future__ import annotations

import pytest

from client import peer as wire
from client.peer import Peer
from client.talking import client_of
from milepost.client import Policy, Unauthorized
from milepost.client.origins import Origins

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("code", [500, 501])
async def test_a_server_that_keeps_answering_500_to_the_probe_is_an_older_one_and_is_asked_again_next_time(
    peer: Peer, policy: Policy, origins: Origins, code: int
) -> None:
    peer.on("server/discover", wire.status(code))
    async with client_of(peer, policy, origins, mode="auto") as client:
        assert client.protocol_version == "2025-11-25"
    tries = len(peer.of("server/discover"))
    assert tries > 3
    async with client_of(peer, policy, origins, mode="auto"):
        assert len(peer.of("server/discover")) == 2 * tries  # it may have been ill: nothing is remembered


@pytest.mark.parametrize("code", [401, 403])
async def test_a_server_that_wants_authorization_is_told_as_such_whatever_it_says_to_the_older_handshake(
    peer: Peer, policy: Policy, code: int
) -> None:
    peer.on("server/discover", wire.status(code))
    peer.on("initialize", wire.error(-32600, "no MCP-Protocol-Version header", http=400))
    with pytest.raises(Unauthorized, match=f"wants authorization .{code}.") as caught:
        async with client_of(peer, policy, mode="auto"):
            pass
    assert caught.value.status == code


async def test_a_probe_that_wants_authorization_says_nothing_about_the_era(
    peer: Peer, policy: Policy, origins: Origins
) -> None:
    peer.on("server/discover", wire.status(401), wire.result(wire.DISCOVER))
    async with client_of(peer, policy, origins, mode="auto") as client:
        assert client.protocol_version == "2025-11-25"  # whose handshake is free for all
    async with client_of(peer, policy, origins, mode="auto") as client:
        assert client.protocol_version == "2026-07-28"
