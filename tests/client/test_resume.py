"""The client's own death: killed with SIGKILL in the middle, started again, and nobody is asked twice."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from client import peer as wire
from client.peer import Peer
from client.talking import LEGACY, MODERN, Person, client_of, question, text_of
from milepost.client import JournalInUse, OutcomeUnknown, Policy, unfinished
from milepost.core.errors import StoreError
from processes import ROOT, ServerProcess, served

pytestmark = pytest.mark.anyio

CHILD = Path(__file__).with_name("child.py")
DESK = Path(__file__).with_name("desk.py")
LIMIT = 40.0
ERAS = [MODERN, LEGACY]


class Child:
    """One client process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.said: list[str] = []

    async def until(self, beginning: str) -> str:
        """The next line that begins so."""
        assert self._process.stdout is not None
        async with asyncio.timeout(LIMIT):
            while line := (await self._process.stdout.readline()).decode().rstrip("\n"):
                self.said.append(line)
                if line.startswith(beginning):
                    return line
        pytest.fail(f"it ended without {beginning!r}, after {self.said}")

    async def answer(self, name: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{name}\n".encode())
        await self._process.stdin.drain()

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, signal.SIGKILL)
        await self._process.wait()


@asynccontextmanager
async def client(what: str, url: str, journal: str, mode: str, case: str = "trip") -> AsyncIterator[Child]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, CHILD, what, url, journal, mode, case, cwd=ROOT, env={**os.environ, "PYTHONPATH": "tests"},
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    child = Child(process)
    try:
        yield child
    finally:
        await child.kill()


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    async with served(f"{DESK}:mcp", tmp_path, env={"LEDGER": str(tmp_path / "ledger")}) as server:
        yield server


@pytest.fixture
def journal(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'client.db'}"


def effects(server: ServerProcess) -> list[str]:
    return (server.folder / "ledger").read_text().splitlines()


@pytest.mark.parametrize("mode", ERAS)
async def test_a_client_that_dies_while_a_question_is_open_asks_it_again_and_no_other(
    desk: ServerProcess, journal: str, mode: str
) -> None:
    async with client("call", desk.url, journal, mode) as first:
        await first.until("asked")
        await first.answer("Ada")
        await first.until("asked trip: question 1?")
    async with client("resume", desk.url, journal, mode) as second:
        await second.until("asked trip: question 1?")
        await second.answer("Bob")
        assert await second.until("ended") == "ended arrange booked trip Ada; booked trip Bob"
        assert await second.until("pending") == "pending 0"
    assert "asked trip: question 0?" not in second.said
    assert "stage booking end" in second.said, "progress goes on too, on a stream that another process began"
    assert effects(desk) == ["trip Ada", "trip Bob"]


@pytest.mark.parametrize("mode", ERAS)
async def test_an_answer_that_was_given_is_sent_by_the_next_process(
    desk: ServerProcess, journal: str, mode: str
) -> None:
    async with client("call", desk.url, journal, mode) as first:
        await first.until("asked trip: question 0?")
        await desk.kill()  # so that the answer can't go out
        await first.answer("Ada")
        await first.until("answered")
        async with asyncio.timeout(LIMIT):
            while unfinished(journal)[0].questions:
                await asyncio.sleep(0.02)
    await desk.start()
    async with client("resume", desk.url, journal, mode) as second:
        await second.until("asked trip: question 1?")
        await second.answer("Bob")
        assert await second.until("ended") == "ended arrange booked trip Ada; booked trip Bob"
    assert "asked trip: question 0?" not in second.said
    assert effects(desk) == ["trip Ada", "trip Bob"]


@pytest.mark.parametrize("mode", ERAS)
async def test_client_and_server_may_both_die(desk: ServerProcess, journal: str, mode: str) -> None:
    async with client("call", desk.url, journal, mode) as first:
        await first.until("asked")
        await first.answer("Ada")
        await first.until("asked trip: question 1?")
        await desk.kill()
    await desk.start()
    async with client("resume", desk.url, journal, mode) as second:
        await second.until("asked trip: question 1?")
        await desk.restart()
        await second.answer("Bob")
        assert await second.until("ended") == "ended arrange booked trip Ada; booked trip Bob"
    assert effects(desk) == ["trip Ada", "trip Bob"]


async def test_a_call_that_must_not_be_sent_again_ends_as_unknown(peer: Peer, journal: str) -> None:
    peer.on("tools/call", wire.hang)
    async with client("charge", peer.url, journal, MODERN):
        await peer.until("tools/call")
    async with client_of(peer, Policy(), journal=journal) as later:
        (ended,) = await later.resume()
        assert isinstance(ended.error, OutcomeUnknown)
        assert not later.pending()
    assert len(peer.of("tools/call")) == 1


async def test_a_stock_servers_round_that_was_open_goes_on_with_its_state(peer: Peer, journal: str) -> None:
    ask = {"resultType": "input_required", "inputRequests": {"k": question("who?")}, "requestState": "sealed"}
    peer.on("tools/call", wire.result(ask), wire.result(wire.TEXT))
    async with client("call", peer.url, journal, MODERN) as first:
        await first.until("asked who?")
    person = Person()
    async with client_of(peer, Policy(), journal=journal, elicitation_callback=person) as later:
        (pending,) = later.pending()
        assert [one["params"]["message"] for one in pending.questions] == ["who?"]
        (ended,) = await later.resume()
    assert text_of(ended.result) == "done"
    assert person.asked == ["who?"]
    assert peer.of("tools/call")[1].params["requestState"] == "sealed"


async def test_a_round_that_was_being_sent_is_of_unknown_outcome_and_keeps_its_answers(
    peer: Peer, journal: str
) -> None:
    ask = {"resultType": "input_required", "inputRequests": {"k": question("who?")}, "requestState": "sealed"}
    peer.on("tools/call", wire.result(ask), wire.hang)
    async with client("call", peer.url, journal, MODERN) as first:
        await first.until("asked")
        await first.answer("Ada")
        await peer.until("tools/call", 2)
    person = Person()
    async with client_of(peer, Policy(), journal=journal, elicitation_callback=person) as later:
        (ended,) = await later.resume()
        assert isinstance(ended.error, OutcomeUnknown)
        (kept,) = later.pending()
        await later.forget(kept.call_id)
        assert not later.pending()
    assert not person.asked
    assert len(peer.of("tools/call")) == 2


async def test_a_call_of_a_client_that_lives_is_left_alone(peer: Peer, journal: str) -> None:
    peer.on("tools/call", wire.hang)
    async with client("charge", peer.url, journal, MODERN):
        await peer.until("tools/call")
        async with client_of(peer, Policy(), journal=journal) as other:
            (pending,) = other.pending()
            assert pending.alive
            assert await other.resume() == []
            (ended,) = await other.resume(pending.call_id)
            assert isinstance(ended.error, JournalInUse)
            with pytest.raises(LookupError, match="no call"):
                await other.resume("call-of-nobody")


async def test_what_a_client_leaves_can_be_gone_on_with(peer: Peer, journal: str) -> None:
    ask = {"resultType": "input_required", "inputRequests": {"k": question("who?")}, "requestState": "sealed"}
    peer.on("tools/call", wire.result(ask), wire.result(wire.TEXT))
    person = Person(ready=anyio.Event())
    async with client_of(peer, Policy(), journal=journal, elicitation_callback=person) as first:
        call = asyncio.create_task(first.call_tool("look", {"at": 1}))
        await person.being_asked.wait()
        first.leave()
        call.cancel()
        await asyncio.wait([call])
    async with client_of(peer, Policy(), journal=journal, elicitation_callback=Person()) as second:
        (ended,) = await second.resume()
    assert text_of(ended.result) == "done"


@pytest.mark.parametrize("bad", ["client.db", "sqlite://", "postgresql://x/y"])
def test_a_journal_that_is_none_is_refused_at_once(bad: str) -> None:
    with pytest.raises(Exception, match="use sqlite:///"):
        unfinished(bad)


async def test_a_journal_that_can_not_be_written_is_said_at_once(peer: Peer, tmp_path: Path) -> None:
    (tmp_path / "client.db").write_bytes(b"this is no database, but a file of somebody's own" * 100)
    with pytest.raises(StoreError, match="can't be used"):
        async with client_of(peer, Policy(), journal=f"sqlite:///{tmp_path / 'client.db'}"):
            pytest.fail("it is no journal")


def test_a_journal_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert unfinished(f"sqlite:///{tmp_path / 'none.db'}") == []
    assert list(tmp_path.iterdir()) == []
