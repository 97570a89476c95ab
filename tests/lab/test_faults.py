"""Each toxic does what toxiproxy says it does, on real sockets, and stops when it is removed."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest
from peers import BOUND, Replica, Streams, connected, echo, exchanged, listening, post

from lab.faults import Proxy
from lab.toxics import Bandwidth, Duplicate, Latency, LimitData, Reorder, ResetPeer, Slicer, SlowClose, Timeout

pytestmark = pytest.mark.anyio

SEEDED = random.Random(1)  # noqa: S311  no secret


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    async with listening(echo) as port, Proxy(port, rng=SEEDED) as between:
        yield between


@pytest.fixture
async def streams(proxy: Proxy) -> AsyncIterator[Streams]:
    opened = await connected(proxy.port)
    yield opened
    opened[1].transport.abort()


async def ended(streams: Streams) -> bytes:
    """What still comes, up to the end."""
    async with asyncio.timeout(BOUND):
        return await streams[0].read()


def now() -> float:
    return asyncio.get_running_loop().time()


async def test_without_toxics_everything_passes(streams: Streams) -> None:
    big = bytes(range(256)) * 4000
    assert await exchanged(streams, b"hello") == b"hello"
    assert await exchanged(streams, big) == big


async def test_an_end_passes_too(streams: Streams) -> None:
    streams[1].write(b"last")
    streams[1].write_eof()
    assert await ended(streams) == b"last"


async def test_latency_delays_and_keeps_the_order(proxy: Proxy, streams: Streams) -> None:
    toxic = proxy.add(Latency(0.1, jitter=0.05, stream="downstream"))
    begun = now()
    for n in range(10):
        streams[1].write(b"%d" % n)
        await streams[1].drain()
    async with asyncio.timeout(BOUND):
        assert await streams[0].readexactly(10) == b"0123456789"
    assert now() - begun >= 0.05
    assert toxic.hits == 1


async def test_bandwidth_takes_its_time(proxy: Proxy, streams: Streams) -> None:
    proxy.add(Bandwidth(10_000, stream="upstream"))
    begun = now()
    await exchanged(streams, b"x" * 2000)
    assert now() - begun >= 0.19


async def test_slicer_slices(proxy: Proxy) -> None:
    pieces: list[bytes] = []
    whole = asyncio.Event()

    async def gather(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(65536):
            pieces.append(piece)
            if sum(map(len, pieces)) == 100:
                whole.set()
        writer.close()

    async with listening(gather) as port:
        proxy.upstream = port
        proxy.add(Slicer(20, size_variation=5, delay=0.01, stream="upstream"))
        _, writer = await connected(proxy.port)
        writer.write(b"y" * 100)
        async with asyncio.timeout(BOUND):
            await whole.wait()
        writer.close()
    assert b"".join(pieces) == b"y" * 100
    assert 4 <= len(pieces) <= 7


async def test_timeout_0_is_half_open_and_what_was_held_back_comes_when_it_is_removed(
    proxy: Proxy, streams: Streams
) -> None:
    toxic = proxy.add(Timeout(0, stream="downstream"))
    streams[1].write(b"anybody?")
    reading = asyncio.ensure_future(streams[0].readexactly(8))
    done, _ = await asyncio.wait([reading], timeout=0.1)
    assert not done
    assert not streams[0].at_eof()
    proxy.remove(toxic)
    async with asyncio.timeout(BOUND):
        assert await reading == b"anybody?"


async def test_timeout_closes_after_its_time(proxy: Proxy, streams: Streams) -> None:
    await exchanged(streams, b"here")
    proxy.add(Timeout(0.05))
    streams[1].write(b"lost")
    assert await ended(streams) == b""


async def test_reset_peer_resets_both_ends(proxy: Proxy) -> None:
    met: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()

    async def wait(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
        except ConnectionResetError as reset:
            met.set_result(reset)
        writer.close()

    async with listening(wait) as port:
        proxy.upstream = port
        reader, writer = await connected(proxy.port)
        writer.write(b"begun")
        await writer.drain()
        proxy.add(ResetPeer(0.0))
        with pytest.raises(ConnectionResetError):
            async with asyncio.timeout(BOUND):
                await reader.read()
        async with asyncio.timeout(BOUND):
            assert isinstance(await met, ConnectionResetError)
        writer.close()


async def test_limit_data_closes_after_so_many_bytes(proxy: Proxy, streams: Streams) -> None:
    proxy.add(LimitData(4, stream="downstream"))
    streams[1].write(b"123456")
    assert await ended(streams) == b"1234"


async def test_slow_close_ends_later(proxy: Proxy, streams: Streams) -> None:
    proxy.add(SlowClose(0.1, stream="downstream"))
    streams[1].write(b"bye")
    streams[1].write_eof()
    begun = now()
    assert await ended(streams) == b"bye"
    assert now() - begun >= 0.1


async def test_toxicity_is_the_share_of_connections(proxy: Proxy) -> None:
    toxic = proxy.add(LimitData(0, stream="downstream", toxicity=0.5))
    cut = 0
    for _ in range(40):
        reader, writer = await connected(proxy.port)
        writer.write(b"?")
        async with asyncio.timeout(BOUND):
            cut += await reader.read(1) == b""
        writer.close()
    assert 0 < cut < 40
    assert toxic.hits == cut


async def test_down_refuses_and_closes_and_up_takes_the_same_port(proxy: Proxy, streams: Streams) -> None:
    await exchanged(streams, b"here")
    await proxy.down()
    assert await ended(streams) == b""
    with pytest.raises(ConnectionRefusedError):
        await connected(proxy.port)
    await proxy.up()
    again = await connected(proxy.port)
    assert await exchanged(again, b"back") == b"back"
    again[1].close()


async def test_cut_ends_and_reset_resets_all_connections(proxy: Proxy) -> None:
    first, second = await connected(proxy.port), await connected(proxy.port)
    for streams in (first, second):
        await exchanged(streams, b"here")
    assert proxy.cut() == 2
    assert [await ended(streams) for streams in (first, second)] == [b"", b""]
    third = await connected(proxy.port)
    await exchanged(third, b"here")
    assert proxy.reset() == 1
    with pytest.raises(ConnectionResetError):
        await ended(third)
    for _, writer in (first, second, third):
        writer.close()


async def test_the_upstream_can_change_under_new_connections(proxy: Proxy, streams: Streams) -> None:
    other = Replica("other")
    await other.start()
    proxy.upstream = other.port
    reader, writer = await connected(proxy.port)
    writer.write(post(b""))
    async with asyncio.timeout(BOUND):
        assert await reader.readuntil(b"other")
    assert await exchanged(streams, b"still the echo") == b"still the echo"
    writer.close()
    await other.stop()


async def test_it_tells_who_waits_for_an_answer(proxy: Proxy, streams: Streams) -> None:
    await exchanged(streams, b"here")
    assert proxy.waiting == 0
    toxic = proxy.add(Timeout(0, stream="downstream"))
    streams[1].write(b"and now")
    async with asyncio.timeout(BOUND):
        while not proxy.waiting:
            await asyncio.sleep(0)
    proxy.remove(toxic)
    async with asyncio.timeout(BOUND):
        await streams[0].readexactly(7)
    assert proxy.waiting == 0


# --- messages ------------------------------------------------------------------------------------


@pytest.fixture
async def replica() -> AsyncIterator[Replica]:
    one = Replica("one")
    await one.start()
    yield one
    await one.stop()


@pytest.fixture
async def messages(replica: Replica) -> AsyncIterator[Proxy]:
    async with Proxy(replica.port, messages=True, rng=SEEDED) as between:
        yield between


async def test_a_duplicated_post_comes_twice_and_is_answered_once(messages: Proxy, replica: Replica) -> None:
    toxic = messages.add(Duplicate())
    reader, writer = await connected(messages.port)
    writer.write(post(b"book it"))
    async with asyncio.timeout(BOUND):
        await reader.readuntil(b"one")
        while len(replica.got) < 2:
            await replica.news.wait()
            replica.news.clear()
    assert [request.body for request in replica.got] == [b"book it", b"book it"]
    assert toxic.hits == 1
    writer.close()
    assert await reader.read() == b""


async def test_a_reordered_post_is_overtaken_by_the_next(messages: Proxy, replica: Replica) -> None:
    toxic = messages.add(Reorder(BOUND))
    first, second = await connected(messages.port), await connected(messages.port)
    first[1].write(post(b"first"))
    await first[1].drain()
    async with asyncio.timeout(BOUND):
        while not messages.held:
            await asyncio.sleep(0)
    messages.toxics.remove(toxic)  # the second message does not suffer from it; the first one still does
    second[1].write(post(b"second"))
    async with asyncio.timeout(BOUND):
        await second[0].readuntil(b"one")
        await first[0].readuntil(b"one")
    assert [request.body for request in replica.got] == [b"second", b"first"]
    assert toxic.hits == 1
    for _, writer in (first, second):
        writer.close()


async def test_a_message_that_nothing_overtakes_goes_on_after_the_delay(messages: Proxy, replica: Replica) -> None:
    toxic = messages.add(Reorder(0.05))
    reader, writer = await connected(messages.port)
    writer.write(post(b"alone"))
    async with asyncio.timeout(BOUND):
        await reader.readuntil(b"one")
    assert toxic.hits == 0
    writer.close()


async def test_what_is_no_whole_request_passes_as_bytes() -> None:
    async with listening(echo) as port, Proxy(port, messages=True) as between:
        streams = await connected(between.port)
        odd = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"
        assert await exchanged(streams, odd) == odd
        streams[1].close()
