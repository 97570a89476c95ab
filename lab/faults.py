"""A TCP proxy that does to connections what networks do: toxics are added and removed while it runs (`lab/toxics.py`).

One stands in front of each replica and one between each replica and PostgreSQL. With `messages=True` it sees whole
HTTP requests and can send one twice, or later than the next.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import TypeVar

from lab.http1 import LONGEST_HEAD, NotHttp, Request, read_request
from lab.ports import free_port
from lab.toxics import (
    Bandwidth,
    Direction,
    Duplicate,
    Latency,
    LimitData,
    Reorder,
    ResetPeer,
    Slicer,
    SlowClose,
    Timeout,
    Toxic,
)

CHUNK = 65536
AHEAD = 64
"""Chunks that a direction holds, at most: whoever sends more waits, as before any full buffer."""
COPY_LIMIT = 60.0
"""Seconds for which the answer to a duplicate is read and thrown away."""

T = TypeVar("T", bound=Toxic)


class Proxy:
    """Passes connections on from a port of its own to `upstream`, a port of 127.0.0.1 that may be changed any time."""

    def __init__(self, upstream: int, *, messages: bool = False, rng: random.Random | None = None) -> None:
        self.upstream = upstream
        self.messages = messages
        self.port = 0
        self.links: set[Link] = set()
        self.rng = rng or random.Random()
        self.toxics: list[Toxic] = []
        self.changed = asyncio.Event()
        """Set, and replaced, whenever a toxic comes or goes."""
        self.went_by = asyncio.Event()
        """Set, and replaced, whenever a POST has gone by, with `messages`."""
        self.held = 0
        """POSTs that wait to be overtaken."""
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    # --- its life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen; the second time on the same port as the first. Idempotent."""
        if self._server is None:
            self.port = self.port or free_port()
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, limit=LONGEST_HEAD)

    async def aclose(self) -> None:
        """Take no more connections and end those that are. Idempotent."""
        await self.down()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # for the transports to close

    async def __aenter__(self) -> Proxy:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def down(self) -> None:
        """Toxiproxy's `down`: refuse connections and close those that are, until `up`."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.cut()

    async def up(self) -> None:
        await self.start()

    # --- faults ------------------------------------------------------------------------------------

    def add(self, toxic: T) -> T:
        self.toxics.append(toxic)
        for link in self.links:
            link.befall(toxic)
        self._change()
        return toxic

    def remove(self, toxic: Toxic) -> None:
        """Idempotent."""
        if toxic in self.toxics:
            self.toxics.remove(toxic)
            self._change()

    def _change(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    @asynccontextmanager
    async def with_toxic(self, toxic: T) -> AsyncIterator[T]:
        """The toxic is there as long as the block."""
        self.add(toxic)
        try:
            yield toxic
        finally:
            self.remove(toxic)

    def cut(self) -> int:
        """Close all connections, both ends, as an orderly end. How many."""
        return self._each("close")

    def reset(self) -> int:
        """Reset all connections, both ends. How many."""
        return self._each("reset")

    def _each(self, end: str) -> int:
        links = list(self.links)
        for link in links:
            getattr(link, end)()
        return len(links)

    @property
    def waiting(self) -> int:
        """Connections on which something was sent upstream that has had no word of answer yet."""
        return sum(link.waiting for link in self.links)

    # --- connections -------------------------------------------------------------------------------

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._keep(self._serve(reader, writer)).add_done_callback(lambda _: writer.close())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.upstream, limit=LONGEST_HEAD)
        except OSError:
            _reset(writer)
            return
        link = Link(self, (reader, writer), (up_reader, up_writer))
        self.links.add(link)
        try:
            await link.run()
        finally:
            self.links.discard(link)

    def copy(self, request: Request) -> None:
        """Send it once more, on a connection of its own."""
        self._keep(self._copy(request))

    def _keep(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _copy(self, request: Request) -> None:
        with contextlib.suppress(OSError, TimeoutError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.upstream)
            try:
                writer.write(request.raw)
                async with asyncio.timeout(COPY_LIMIT):
                    while await reader.read(CHUNK):
                        pass
            finally:
                writer.close()


class Link:
    """One connection: two directions, each with its toxics."""

    def __init__(
        self,
        proxy: Proxy,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self.proxy = proxy
        self.waiting = False
        self.passed: Counter[Direction] = Counter()
        self._writers = (client[1], server[1])
        self._lanes = (Lane(self, "upstream", client[0], server[1]), Lane(self, "downstream", server[0], client[1]))
        self._drawn: dict[Toxic, bool] = {}
        self._dooms: list[asyncio.TimerHandle] = []
        for toxic in proxy.toxics:
            self.befall(toxic)

    async def run(self) -> None:
        """Until both directions have ended, or one broke."""
        try:
            async with asyncio.TaskGroup() as group:
                for lane in self._lanes:
                    group.create_task(lane.run())
        except* OSError:
            self.reset()
        finally:
            for doom in self._dooms:
                doom.cancel()
            self.close()

    def befalls(self, toxic: Toxic) -> bool:
        """Whether this connection is one of those that the toxic befalls: drawn once."""
        if toxic not in self._drawn:
            self._drawn[toxic] = self.proxy.rng.random() < toxic.toxicity
            toxic.hits += self._drawn[toxic] and not isinstance(toxic, Duplicate | Reorder)
        return self._drawn[toxic]

    def befall(self, toxic: Toxic) -> None:
        """A toxic that ends connections has come: this one's end is set."""
        if isinstance(toxic, ResetPeer) and self.befalls(toxic):
            self._doom(toxic, self.reset)
        elif isinstance(toxic, Timeout) and self.befalls(toxic) and toxic.timeout:
            self._doom(toxic, self.close)

    def _doom(self, toxic: ResetPeer | Timeout, end: Callable[[], None]) -> None:
        def due() -> None:
            if toxic in self.proxy.toxics:
                end()

        self._dooms.append(asyncio.get_running_loop().call_later(toxic.timeout, due))

    def close(self) -> None:
        for writer in self._writers:
            writer.close()
        self._give_up()

    def reset(self) -> None:
        for writer in self._writers:
            _reset(writer)
        self._give_up()

    def _give_up(self) -> None:
        for lane in self._lanes:
            lane.give_up()


class Lane:
    """One direction of a connection: reads ahead within a bound, and passes on as its toxics let it."""

    def __init__(
        self, link: Link, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._link = link
        self._direction: Direction = direction
        self._reader = reader
        self._writer = writer
        self._parcels: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(AHEAD)
        self._clock = asyncio.get_running_loop().time
        self._tasks: list[asyncio.Task[None]] = []
        self._over = False

    async def run(self) -> None:
        self._tasks = [asyncio.ensure_future(self._read()), asyncio.ensure_future(self._pass_on())]
        if self._over:
            self.give_up()
        try:
            await asyncio.gather(*self._tasks)
        except asyncio.CancelledError:
            if not self._over:
                raise
        finally:
            self.give_up()

    def give_up(self) -> None:
        """The connection has ended: wait for nothing any more."""
        self._over = True
        for task in self._tasks:
            task.cancel()

    def _here(self, kind: type[T]) -> Iterator[T]:
        for toxic in list(self._link.proxy.toxics):
            if isinstance(toxic, kind) and toxic.on(self._direction) and self._link.befalls(toxic):
                yield toxic

    # --- reading -----------------------------------------------------------------------------------

    async def _read(self) -> None:
        messages = self._link.proxy.messages and self._direction == "upstream"
        while True:
            chunk = await (self._message() if messages else self._reader.read(CHUNK))
            await self._parcels.put((self._clock(), chunk))
            if not chunk:
                return

    async def _message(self) -> bytes:
        """A whole request, which may come twice or later; whatever is no request is passed on as it is."""
        proxy = self._link.proxy
        try:
            request = await read_request(self._reader)
        except NotHttp as odd:
            return bytes(odd.args[0])
        if request is None:
            return b""
        if request.method == "POST":
            for late in self._drawn(Reorder):
                await self._overtaken(late)
            proxy.went_by.set()
            proxy.went_by = asyncio.Event()
            for _ in self._drawn(Duplicate):
                proxy.copy(request)
        return request.raw

    def _drawn(self, kind: type[T]) -> Iterator[T]:
        """The toxics of this kind that befall this message."""
        for toxic in list(self._link.proxy.toxics):
            if isinstance(toxic, kind) and self._link.proxy.rng.random() < toxic.toxicity:
                toxic.hits += isinstance(toxic, Duplicate)
                yield toxic

    async def _overtaken(self, late: Reorder) -> None:
        """Wait until another message has gone by; it counts only then."""
        proxy = self._link.proxy
        proxy.held += 1
        try:
            async with asyncio.timeout(late.delay):
                await proxy.went_by.wait()
            late.hits += 1
        except TimeoutError:
            pass
        finally:
            proxy.held -= 1

    # --- passing on --------------------------------------------------------------------------------

    async def _pass_on(self) -> None:
        while True:
            came, chunk = await self._parcels.get()
            await self._late(came)
            await self._held_back()
            if not chunk:
                await self._end()
                return
            for slice_, pause in self._slices(chunk):
                await self._slowly(slice_)
                await self._write(slice_)
                if pause:
                    await asyncio.sleep(pause)

    async def _late(self, came: float) -> None:
        for toxic in self._here(Latency):
            due = came + toxic.latency + self._link.proxy.rng.uniform(-toxic.jitter, toxic.jitter)
            await asyncio.sleep(max(0.0, due - self._clock()))

    async def _held_back(self) -> None:
        while any(self._here(Timeout)):
            await self._link.proxy.changed.wait()

    async def _slowly(self, data: bytes) -> None:
        for toxic in self._here(Bandwidth):
            await asyncio.sleep(len(data) / toxic.rate)

    def _slices(self, data: bytes) -> Iterator[tuple[bytes, float]]:
        toxic = next(self._here(Slicer), None)
        at = 0
        while toxic is not None and at < len(data):
            size = toxic.average_size + self._link.proxy.rng.randint(-toxic.size_variation, toxic.size_variation)
            yield data[at : at + max(1, size)], toxic.delay
            at += max(1, size)
        if toxic is None:
            yield data, 0.0

    async def _write(self, data: bytes) -> None:
        allowed = [toxic.bytes - self._link.passed[self._direction] for toxic in self._here(LimitData)]
        passed = data[: max(0, min(allowed))] if allowed else data
        if passed:
            self._link.waiting = self._direction == "upstream"
            self._link.passed[self._direction] += len(passed)
            self._writer.write(passed)
            await self._writer.drain()
        if allowed and min(allowed) <= len(data):
            self._link.close()

    async def _end(self) -> None:
        for toxic in self._here(SlowClose):
            await asyncio.sleep(toxic.delay)
        if self._writer.can_write_eof() and not self._writer.is_closing():
            self._writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close it so that the other end gets a reset."""
    sock: socket.socket | None = writer.get_extra_info("socket")
    if sock is not None and not writer.is_closing():
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
