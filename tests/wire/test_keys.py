"""Changing the key of `requestState` under traffic: three phases, and no leg is refused while they are rolled out."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import anyio
import httpx2
import pytest
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.resolve import Elicit, Resolve
from mcp.server.request_state import AESGCMRequestStateCodec
from pydantic import BaseModel

from wire.sample import Effects, a_server
from wire.serving import LIMIT, Raw, call, serving
from wire.test_modern import ASKABLE, ask, retry

pytestmark = pytest.mark.anyio
OLD, NEW = b"o" * 32, b"n" * 32
PHASES = {"old": [OLD], "old, new": [OLD, NEW], "new, old": [NEW, OLD], "new": [NEW]}
NEIGHBOURS = [pytest.param(a, b, id=f"[{a}] beside [{b}]") for a, b in pairwise(PHASES)]


class Replicas:
    """Two replicas on one store, each with its own key ring."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stack = AsyncExitStack()

    async def start(self, server: MCPServer, keys: Sequence[bytes], **http: Any) -> Raw:
        flags = {"http": {"request_state_keys": list(keys), **http}}
        started = await self._stack.enter_async_context(serving(server, self._path, **flags))
        return Raw(await self._stack.enter_async_context(httpx2.AsyncClient(timeout=15)), started.url)

    async def close(self) -> None:
        await self._stack.aclose()


@pytest.fixture
async def replicas(store_path: Path) -> AsyncIterator[Replicas]:
    replicas = Replicas(store_path)
    with anyio.fail_after(LIMIT):
        yield replicas
        await replicas.close()


@pytest.mark.parametrize(("before", "after"), NEIGHBOURS)
async def test_no_leg_is_refused_between_replicas_in_neighbouring_phases(
    replicas: Replicas, effects: Effects, before: str, after: str
) -> None:
    one = await replicas.start(a_server(effects), PHASES[before])
    two = await replicas.start(a_server(effects), PHASES[after])
    for name, here, there in (("Ann", one, two), ("Bob", two, one)):
        arguments = {"name": name}
        first = await ask(here, call("trip", arguments))
        second = await ask(there, retry("trip", arguments, first, {"q1": {"day": 6}}))
        done = await ask(here, retry("trip", arguments, second, {"q2": {"seat": "3D"}}))
        assert done["content"][0]["text"] == f"{name}: B-63D"


async def test_a_phase_that_is_skipped_does_refuse_some(replicas: Replicas, effects: Effects) -> None:
    """Why there are three: a replica that signs with the new key before all others accept it."""
    one = await replicas.start(a_server(effects), PHASES["old"])
    two = await replicas.start(a_server(effects), PHASES["new, old"])
    first = await ask(two, call("trip", {"name": "Ann"}))
    refused = await one.modern(retry("trip", {"name": "Ann"}, first, {"q1": {"day": 6}}), ASKABLE)
    assert refused.json()["error"]["message"] == "Invalid or expired requestState"


class Wish(BaseModel):
    day: int


async def wish(ctx: Context[Any]) -> Elicit[Wish]:
    return Elicit("Which day?", Wish)


def with_its_own_state() -> MCPServer:
    """A stateless tool that asks by the SDK's own rounds, sealed by the SDK's own boundary."""
    mcp = MCPServer("own")

    @mcp.tool()
    async def plan(asked: Annotated[Wish, Resolve(wish)]) -> str:
        return f"day {asked.day}"

    return mcp


@pytest.mark.parametrize(("before", "after"), NEIGHBOURS)
async def test_the_sdks_own_rounds_pass_too(replicas: Replicas, before: str, after: str) -> None:
    one = await replicas.start(with_its_own_state(), PHASES[before])
    two = await replicas.start(with_its_own_state(), PHASES[after])
    for here, there in ((one, two), (two, one)):
        first = await ask(here, call("plan"))
        (key,) = first["inputRequests"]
        done = await ask(there, retry("plan", {}, first, {key: {"day": 6}}))
        assert done["content"][0]["text"] == "day 6"


@pytest.mark.parametrize("off", [300.0, -300.0], ids=["ahead", "behind"])
async def test_hazard_b5_a_state_that_a_replica_with_a_wrong_clock_sealed_is_taken(
    replicas: Replicas, off: float
) -> None:
    raw = await replicas.start(with_its_own_state(), [OLD], request_state_ttl=60)
    first = await ask(raw, call("plan"))
    codec = AESGCMRequestStateCodec([OLD])
    claims = json.loads(codec.unseal(first["requestState"]))
    moved = {**claims, "iat": claims["iat"] + off, "exp": claims["exp"] + off}
    (key,) = first["inputRequests"]
    sealed_there = {"requestState": codec.seal(json.dumps(moved).encode())}
    done = await ask(raw, retry("plan", {}, sealed_there, {key: {"day": 6}}))
    assert done["content"][0]["text"] == "day 6"
