"""A history that was recorded while it happened is the one that is checked afterwards."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from test_checks import EFFECTS, NIGHTS, RECEIPT, RUN, SAYING, TELLING, asking, progress

from drills import recorded
from drills.checks import violations
from drills.history import Disruption, Told
from drills.over_http import Front, HandshakeTalk
from drills.recorded import Recorder
from drills.talk import Script

STEPS = ("look_up", "pay")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "history.jsonl"


def hold(recorder: Recorder) -> Told:
    """One conversation, as its client sees it."""
    told = Told("h1-1", "handshake")
    recorder.conversation(told)
    told.saw("requested")
    told.saw("opened", "s1", 0)
    for frame in (progress(1, 0.0), asking(2), SAYING, TELLING):
        told.saw("read", frame.n, dict(frame.message))
    told.saw("progressed", 0.0)
    told.saw("acknowledged", "h1-1: how many nights?", NIGHTS)
    told.saw("broke")
    told.saw("finished", {"structuredContent": RECEIPT}, None)
    return told


def test_the_record_alone_tells_the_whole_history(file: Path) -> None:
    recorder = Recorder(file)
    told = hold(recorder)
    disruption = Disruption(1, 9.0, 9.5)
    recorder.left(EFFECTS, [RUN], [disruption])
    recorder.close()
    read = recorded.history(recorded.lines(file), STEPS)
    assert read.told == [told]
    assert read.effects == list(EFFECTS)
    assert read.disruptions == [disruption]
    assert read.runs == [replace(RUN, **{name: list(getattr(RUN, name)) for name in
                                         ("entries", "questions", "events", "streams")})]  # fmt: skip
    assert violations(read) == []


def test_what_is_wrong_in_the_record_is_found_in_it(file: Path) -> None:
    recorder = Recorder(file)
    told = hold(recorder)
    told.saw("complained", "asked again")
    recorder.left([*EFFECTS, replace(EFFECTS[0], token="t9", begin=12.0, end=12.1)], [RUN], [])
    recorder.close()
    found = violations(recorded.history(recorded.lines(file), STEPS))
    assert any("asked again" in line for line in found)
    assert any("was recorded, and ran 1 more times" in line for line in found)


def test_an_operation_without_an_end_is_named() -> None:
    def line(kind: str, op: int) -> dict[str, object]:
        return {"at": 1.0, "process": "h1-1", "type": kind, "f": "answer", "value": {"op": op}}

    assert recorded.open_operations([line("invoke", 1), line("ok", 1)]) == []
    assert recorded.open_operations([line("invoke", 1), line("info", 1), line("invoke", 2)]) == [
        "operation answer 2 of h1-1 has no end"
    ]


# --- requests ------------------------------------------------------------------------------------


@pytest.fixture
async def cut_off() -> AsyncIterator[int]:
    """A server that takes a request and hangs up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()


def talk(port: int, file: Path) -> tuple[HandshakeTalk, Recorder]:
    recorder = Recorder(file)
    one = HandshakeTalk(Script("h1-1", 0.1, 0.1, random.Random(1)), Front(port))  # noqa: S311
    recorder.conversation(one.told)
    return one, recorder


async def types(one: HandshakeTalk, recorder: Recorder, file: Path) -> list[str]:
    with pytest.raises(Exception, match=r"reached|answer"):
        await one._open_session()
    recorder.close()
    return [line["type"] for line in recorded.lines(file) if line["f"] == "initialize"]


@pytest.mark.anyio
async def test_a_request_that_broke_may_have_had_an_effect(cut_off: int, file: Path) -> None:
    assert await types(*talk(cut_off, file), file) == ["invoke", "info"]


@pytest.mark.anyio
async def test_a_request_that_reached_nobody_had_none(cut_off: int, file: Path) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    assert await types(*talk(port, file), file) == ["invoke", "fail"]
