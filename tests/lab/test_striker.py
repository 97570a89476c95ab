"""The striker hits the exchange and the place that it was told to, on real sockets, once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from lab.http1 import NotHttp, Request, read_request
from lab.striker import Strike, Striker

pytestmark = pytest.mark.anyio

BOUND = 10.0
EVENTS = [
    b"id: 0\r\ndata: \r\n\r\n",
    b'data: {"method":"notifications/progress","params":{"progress":1}}\r\n\r\n',
    b'data: {"method":"notifications/progress","params":{"progress":2}}\r\n\r\n',
    b'data: {"id":1,"result":{}}\r\n\r\n',
]
WHOLE = b"".join(EVENTS)


class Server:
    """Answers a GET with events, a POST with a JSON object; counts what reached it whole."""

    def __init__(self) -> None:
        self.got: list[Request] = []
        self.news = asyncio.Condition()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(BOUND), self.news:
            await self.news.wait_for(lambda: len(self.got) >= count)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await read_request(reader)
            if request is None:
                return
            async with self.news:
                self.got.append(request)
                self.news.notify_all()
            if request.method == "GET":
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                )
                for event in EVENTS:
                    writer.write(b"%x\r\n%b\r\n" % (len(event), event))
                writer.write(b"0\r\n\r\n")
            else:
                body = json.dumps({"id": 1, "result": {}}).encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nmcp-session-id: s\r\n")
                writer.write(b"content-length: %d\r\n\r\n%b" % (len(body), body))
            await writer.drain()
        except (OSError, NotHttp):  # a request that was cut
            pass
        finally:
            writer.close()


@asynccontextmanager
async def struck(*strikes: Strike, **more: Any) -> AsyncIterator[tuple[Striker, Server]]:
    server = Server()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]

    async def act(strike: Strike) -> None:
        more["acted"].append(strike.name)

    try:
        async with Striker(port, strikes, lambda request: request.method, act) as striker:
            yield striker, server
    finally:
        listening.close()


async def exchange(port: int, verb: str = "POST", session: str = "") -> tuple[int, bytes, str]:
    """Status, body, and how it ended: "whole", "cut" or "reset".."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = b'{"method":"x"}' if verb == "POST" else b""
    named = f"mcp-session-id: {session}\r\n" if session else ""
    writer.write(f"{verb} /mcp HTTP/1.1\r\nhost: x\r\n{named}content-length: {len(body)}\r\n\r\n".encode() + body)
    status, data = 0, b""
    try:
        async with asyncio.timeout(BOUND):
            head = await reader.readuntil(b"\r\n\r\n")
            status = int(head.split(b" ")[1])
            if b"content-length" in head:
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                return status, await reader.readexactly(length), "whole"
            while size := int(await reader.readuntil(b"\r\n"), 16):
                data += (await reader.readexactly(size + 2))[:-2]
            return status, data, "whole"
    except ConnectionResetError:
        return status, data, "reset"
    except asyncio.IncompleteReadError:
        return status, data, "cut"
    finally:
        writer.close()


async def test_without_a_strike_all_goes_through() -> None:
    async with struck() as (striker, _):
        assert await exchange(striker.port) == (200, b'{"id": 1, "result": {}}', "whole")
        assert await exchange(striker.port, "GET") == (200, WHOLE, "whole")
        assert striker.session == "s"


async def test_a_reset_before_keeps_the_request_from_the_server_once() -> None:
    strike = Strike("reset", "before", ["POST"])
    async with struck(strike) as (striker, server):
        assert await exchange(striker.port) == (0, b"", "reset")
        assert server.got == []
        assert strike.hit
        assert (await exchange(striker.port))[2] == "whole"


async def test_the_second_request_of_a_class_is_hit_if_that_was_said() -> None:
    async with struck(Strike("reset", "before", ["POST"], nth=1)) as (striker, _):
        ends = [(await exchange(striker.port))[2] for _ in range(3)]
    assert ends == ["whole", "reset", "whole"]


async def test_a_reset_when_it_is_done_lets_the_server_work_and_no_byte_through() -> None:
    for verb in ("GET", "POST"):
        async with struck(Strike("reset", "done", [verb])) as (striker, server):
            assert await exchange(striker.port, verb) == (0, b"", "reset")
            assert len(server.got) == 1


async def test_half_a_request_is_never_whole_at_the_server() -> None:
    async with struck(Strike("reset", "request", ["POST"])) as (striker, server):
        assert (await exchange(striker.port))[2] == "reset"
        assert (await exchange(striker.port))[2] == "whole"
        assert len(server.got) == 1


async def test_another_status_comes_before_or_instead() -> None:
    before = Strike("status", "before", ["POST"], status=429, retry_after="7")
    instead = Strike("status", "done", ["POST"], status=502)
    async with struck(before, instead) as (striker, server):
        assert (await exchange(striker.port))[0] == 429
        assert server.got == []
        assert (await exchange(striker.port))[0] == 502
        assert len(server.got) == 1


async def test_a_stream_is_truncated_between_events_and_inside_one() -> None:
    async with struck(Strike("ended", "between", ["GET"])) as (striker, _):
        assert await exchange(striker.port, "GET") == (200, b"".join(EVENTS[:3]), "whole")
    async with struck(Strike("cut", "inside", ["GET"], event=1)) as (striker, _):
        status, data, end = await exchange(striker.port, "GET")
    assert (status, end) == (200, "cut")
    assert data == EVENTS[0] + EVENTS[1][: len(EVENTS[1]) // 2]


async def test_events_come_twice_or_in_another_order() -> None:
    async with struck(Strike("twice", "along", ["GET"])) as (striker, _):
        assert (await exchange(striker.port, "GET"))[1] == b"".join(event * 2 for event in EVENTS)
    async with struck(Strike("swapped", "along", ["GET"])) as (striker, _):
        assert (await exchange(striker.port, "GET"))[1] == b"".join([EVENTS[n] for n in (0, 2, 1, 3)])


async def test_a_request_is_delivered_twice() -> None:
    async with struck(Strike("doubled", "before", ["POST"])) as (striker, server):
        assert (await exchange(striker.port))[2] == "whole"
        await server.until(2)


async def test_its_owner_acts_at_the_place() -> None:
    acted: list[str] = []
    lost = Strike("act", "done", ["POST"], name="kill", lost=True)
    async with struck(lost, Strike("act", "before", ["POST"], name="end"), acted=acted) as (striker, server):
        assert (await exchange(striker.port))[2] == "reset"
        assert acted == ["kill"]
        assert (await exchange(striker.port))[2] == "whole"
        assert acted == ["kill", "end"]
        assert len(server.got) == 2


async def test_an_expired_session_is_not_found() -> None:
    async with struck() as (striker, server):
        striker.expired.add("old")
        assert (await exchange(striker.port, session="old"))[0] == 404
        assert (await exchange(striker.port, session="new"))[0] == 200
        assert len(server.got) == 1


async def test_what_is_open_can_be_reset_at_any_moment() -> None:
    strike = Strike("reset", "thinking", ["thinking"])
    async with struck(Strike("half-open", "head", ["GET"]), strike) as (striker, server):
        waiting = asyncio.ensure_future(exchange(striker.port, "GET"))
        await server.until(1)
        await striker.strike_now(strike)
        assert (await waiting)[2] == "reset"
    assert strike.hit


async def test_while_it_is_down_connections_are_refused_and_then_the_port_is_the_same() -> None:
    async with struck() as (striker, _):
        port = striker.port
        striker.down_nowait()
        with pytest.raises(ConnectionRefusedError):
            await exchange(port)
        await striker.up()
        assert (await exchange(port))[2] == "whole"
