"""Which answers to the version probe are a no: the rest of them are in test_modern.py."""

from __future__ import annotations

import pytest

from client import peer as wire
from client.peer import Peer
from client.talking import client_of
from milepost.client import Policy
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
