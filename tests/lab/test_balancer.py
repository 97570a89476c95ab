"""Both balancers, ours and HAProxy where there is one, keep the same contract."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from peers import BOUND, Replica, connected, listening, post

from lab import balancer
from lab.balancer import STAMP, Balancer, Haproxy, RoundRobin
from lab.http1 import headers_of, read_request

pytestmark = pytest.mark.anyio

KINDS = [RoundRobin, *([Haproxy] if balancer.haproxy() else [])]


@pytest.fixture
async def replicas() -> AsyncIterator[list[Replica]]:
    made = [Replica(name) for name in ("a", "b", "c")]
    for replica in made:
        await replica.start()
    yield made
    for replica in made:
        await replica.stop()


@pytest.fixture(params=KINDS)
async def front(request: pytest.FixtureRequest, replicas: list[Replica]) -> AsyncIterator[Balancer]:
    one: Balancer = request.param()
    await one.set_replicas([replica.port for replica in replicas])
    await one.start()
    yield one
    await one.aclose()


async def said(front: Balancer, body: bytes = b"") -> tuple[str, str]:
    """Who answered: by its own word, and by the balancer's."""
    reader, writer = await connected(front.port)
    async with asyncio.timeout(BOUND):
        writer.write(post(body))
        head = await reader.readuntil(b"\r\n\r\n")
        headers = headers_of(head)
        name = await reader.readexactly(int(headers["content-length"]))
        writer.close()
    return name.decode(), headers.get(STAMP, "")


async def until(front: Balancer, names: set[str]) -> None:
    """Requests are served by these, all of them and no others, a whole round long."""
    async with asyncio.timeout(BOUND):
        while True:
            answers = [(await said(front))[0] for _ in range(6)]
            if set(answers) == names:
                return


async def test_requests_go_round(front: Balancer, replicas: list[Replica]) -> None:
    await until(front, {"a", "b", "c"})
    answers = [await said(front) for _ in range(9)]
    assert Counter(name for name, _ in answers) == {"a": 3, "b": 3, "c": 3}
    assert dict(answers) == {one.name: str(one.port) for one in replicas}


async def test_requests_on_one_connection_go_round_too_or_it_is_closed(front: Balancer) -> None:
    reader, writer = await connected(front.port)
    writer.write(post(b""))
    async with asyncio.timeout(BOUND):
        head = await reader.readuntil(b"\r\n\r\n")
        first = await reader.readexactly(1)
        try:
            writer.write(post(b""))
            await reader.readuntil(b"\r\n\r\n")
            assert await reader.readexactly(1) != first
        except (asyncio.IncompleteReadError, ConnectionError):
            assert headers_of(head)
    writer.close()


async def test_a_refused_request_goes_to_the_next_replica(front: Balancer, replicas: list[Replica]) -> None:
    await until(front, {"a", "b", "c"})
    await replicas[1].stop()
    answers = [(await said(front))[0] for _ in range(6)]
    assert set(answers) == {"a", "c"}


async def test_a_replica_that_is_not_ready_gets_nothing_until_it_is(front: Balancer, replicas: list[Replica]) -> None:
    replicas[0].ready = False
    await until(front, {"b", "c"})
    replicas[0].ready = True
    await until(front, {"a", "b", "c"})


async def test_replicas_are_added_and_removed_while_a_stream_runs(front: Balancer, replicas: list[Replica]) -> None:
    reader, writer = await connected(front.port)
    writer.write(post(b"", "/stream"))
    async with asyncio.timeout(BOUND):
        head = await reader.readuntil(b"\r\n\r\n")
        # Not buffered: the first event is here although the stream goes on.
        await reader.readuntil(b"data: first\n\n")
    serving = next(one for one in replicas if str(one.port) == headers_of(head)[STAMP])
    await front.set_replicas([one.port for one in replicas if one is not serving])
    await until(front, {one.name for one in replicas if one is not serving})
    serving.go_on.set()
    async with asyncio.timeout(BOUND):
        await reader.readuntil(b"data: second\n\n")
    writer.close()
    await front.set_replicas([one.port for one in replicas])
    await until(front, {"a", "b", "c"})


async def test_a_client_that_leaves_its_stream_takes_it_along(front: Balancer, replicas: list[Replica]) -> None:
    reader, writer = await connected(front.port)
    writer.write(post(b"", "/stream"))
    async with asyncio.timeout(BOUND):
        await reader.readuntil(b"data: first\n\n")
        writer.close()
        waits = [asyncio.ensure_future(one.left.wait()) for one in replicas]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    assert sum(one.left.is_set() for one in replicas) == 1
    for wait in waits:
        wait.cancel()


async def test_no_replica_is_503_and_comes_again(front: Balancer, replicas: list[Replica]) -> None:
    for one in replicas:
        await one.stop()
    reader, writer = await connected(front.port)
    writer.write(post(b""))
    async with asyncio.timeout(BOUND):
        assert b" 503 " in await reader.readline()
    writer.close()
    await replicas[0].start()
    await until_up(front)


async def until_up(front: Balancer) -> None:
    async with asyncio.timeout(BOUND):
        while True:
            reader, writer = await connected(front.port)
            writer.write(post(b""))
            line = await reader.readline()
            writer.close()
            if b" 200 " in line:
                return


async def test_a_replica_that_ends_in_the_middle_of_a_request_is_502_and_not_tried_elsewhere(front: Balancer) -> None:
    got: list[bytes] = []

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await read_request(reader)
        assert request is not None
        if b" /readyz " in request.head:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        else:
            got.append(request.body)

    async with listening(hang_up) as port:
        await front.set_replicas([port])
        reader, writer = await connected(front.port)
        writer.write(post(b"once"))
        async with asyncio.timeout(BOUND):
            assert b" 502 " in await reader.readline()
        assert got == [b"once"]
        writer.close()
