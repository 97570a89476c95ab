"""Which connections calls go out on: a kept one saves a handshake, and one that is closed meanwhile loses a call."""

from __future__ import annotations

from dataclasses import replace

from client.peer import Peer
from client.talking import client_of
from milepost.client import Policy


async def test_a_kept_connection_serves_the_calls_that_follow_at_once(peer: Peer, policy: Policy) -> None:
    async with client_of(peer, replace(policy, idle_connection=600.0)) as client:
        for _ in range(3):
            await client.call_tool("look")
    assert peer.connections == 1


async def test_a_connection_that_was_idle_for_too_long_is_not_used_again(peer: Peer, policy: Policy) -> None:
    async with client_of(peer, replace(policy, idle_connection=0.0)) as client:
        for _ in range(3):
            await client.call_tool("look")
    assert peer.connections == len(peer.seen) > 3
