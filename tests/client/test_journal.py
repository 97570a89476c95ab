"""The journal as a file: rows that can't be read, what is swept, and who may take what."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from client import peer as wire
from client.peer import TEXT, Peer
from client.talking import LEGACY, MODERN, Person, client_of, question, text_of
from client.test_handshake import ANSWER, primed
from client.test_modern import UNDECLARED, asking
from client.test_resume import client
from milepost.client import OutcomeUnknown, Policy
from milepost.client.events import Finished
from milepost.client.origins import Origins
from milepost.core.errors import StoreError

pytestmark = pytest.mark.anyio


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "client.db"


@pytest.fixture
def journal(file: Path) -> str:
    return f"sqlite:///{file}"


def spoil(file: Path, sql: str) -> None:
    with closing(sqlite3.connect(file)) as db, db:
        db.execute(sql)


async def leave_two(peer: Peer, policy: Policy, journal: str) -> None:
    peer.on("tools/list", wire.result(UNDECLARED))
    peer.on("tools/call", wire.drop)
    async with client_of(peer, policy, journal=journal) as first:
        for name in ("look", "hook"):
            with pytest.raises(OutcomeUnknown):
                await first.call_tool(name)


@pytest.mark.parametrize("body", ["no json", "[]", "{}", '{"asked": [7]}', '{"asked": [], "nobody": 1}'])
async def test_one_row_that_can_not_be_read_hides_no_other(
    peer: Peer, policy: Policy, file: Path, journal: str, body: str
) -> None:
    await leave_two(peer, policy, journal)
    spoil(file, f"UPDATE call SET body = '{body}' WHERE body LIKE '%hook%'")  # noqa: S608  our own words
    peer.on("server/discover", wire.status(400))
    async with client_of(peer, policy, mode="auto", journal=journal) as later:
        assert "look" in [one.name for one in later.pending()]
        assert "look" in [one.call.name for one in await later.resume()]


async def test_what_nobody_needs_any_more_is_swept(peer: Peer, policy: Policy, file: Path, journal: str) -> None:
    async with client_of(peer, policy, journal=journal):
        pass
    spoil(file, "INSERT INTO session VALUES ('s', 'old', 0, '{}'), ('s', 'needed', 0, '{}')")
    spoil(file, "INSERT INTO era VALUES ('http://gone', 'handshake', 1)")
    spoil(file, "INSERT INTO call VALUES ('c', 's', 'o', 'open', 0, 0, '{\"session_id\": \"needed\", \"asked\": []}')")
    spoil(file, "INSERT INTO call VALUES ('d', 's', 'o', 'open', 0, 0, 'no json')")
    dead = file.with_name("client.db.owners") / "client-dead"
    dead.touch()
    async with client_of(peer, policy, journal=journal):
        assert not dead.exists()
    with closing(sqlite3.connect(file)) as db:
        assert db.execute("SELECT id FROM session").fetchall() == [("needed",)]
        assert db.execute("SELECT * FROM era").fetchall() == []


async def test_failed_calls_fill_no_memory_and_stay_in_the_journal(peer: Peer, journal: str) -> None:
    few = Policy(first_delay=0.001, max_unfinished=1, breaker_failures=99)
    peer.on("tools/list", wire.result(UNDECLARED))
    peer.on("tools/call", wire.drop)
    async with client_of(peer, few, journal=journal) as client:
        for n in range(3):
            with pytest.raises(OutcomeUnknown):
                await client.call_tool("look", {"n": n})
        assert len(client._unfinished) == 1
        assert [(one.arguments["n"], one.alive) for one in client.pending()] == [(0, False), (1, False), (2, False)]
        assert len(await client.resume()) == 3


async def test_a_working_call_is_read_on_by_the_next_process_though_it_never_asked(peer: Peer, journal: str) -> None:
    peer.on("tools/call", wire.stream(primed("e1"), end=False))
    async with client("charge", peer.url, journal, LEGACY):
        await peer.until("tools/call")
        while b'"last_event_id":"e1"' not in _wal(journal):
            await client_ping(peer)
    sent = peer.of("tools/call")[0]
    rest = wire.frame({"jsonrpc": "2.0", "id": sent.id, "result": ANSWER}, "e2")

    async def by_id(connection: wire.Connection) -> None:
        is_ours = connection.seen.headers.get("last-event-id") == "e1"
        await (wire.stream(rest) if is_ours else wire.status(405))(connection)

    peer.on("GET", by_id)
    async with client_of(peer, Policy(), mode=LEGACY, journal=journal) as later:
        (ended,) = await later.resume()
        assert text_of(ended.result) == "done"
        await later.session.send_ping()
    assert len(peer.of("tools/call")) == 1
    assert peer.of("ping")[-1].id not in {sent.id, 1, 2, 3}


async def test_the_end_of_a_call_is_written_though_its_task_is_cancelled_meanwhile(
    peer: Peer, policy: Policy, file: Path, journal: str
) -> None:
    may_answer = asyncio.Event()

    async def later(connection: wire.Connection) -> None:
        await may_answer.wait()
        await wire.result(TEXT)(connection)

    peer.on("tools/call", later, wire.result(TEXT))
    async with client_of(peer, policy, journal=journal) as client:
        reader = client.events
        look = asyncio.create_task(client.call_tool("look"))
        await peer.until("tools/call")
        with closing(sqlite3.connect(file)) as other:
            other.execute("BEGIN IMMEDIATE")
            hook = asyncio.create_task(client.call_tool("hook"))  # its beginning waits for the other process
            await anyio.wait_all_tasks_blocked()
            may_answer.set()
            async for event in reader:
                if isinstance(event, Finished):
                    break
            await anyio.wait_all_tasks_blocked()  # and the end of `look` waits for that
            look.cancel()
            with pytest.raises(asyncio.CancelledError):
                await look
            other.rollback()
        await hook
        assert client.pending() == []


def _wal(journal: str) -> bytes:
    return Path(journal.removeprefix("sqlite:///") + "-wal").read_bytes()


async def client_ping(peer: Peer) -> None:
    async with client_of(peer, Policy(), Origins(), mode=LEGACY) as other:
        await other.session.send_ping()


async def test_a_state_to_come_back_with_outlives_the_client(peer: Peer, journal: str) -> None:
    later_please = {"resultType": "input_required", "requestState": "s1", "_meta": {"milepost/retry_after": 300}}
    peer.on("tools/call", wire.result(later_please), wire.result(TEXT))
    async with client("charge", peer.url, journal, MODERN):
        await peer.until("tools/call")
        while b'"request_state":"s1"' not in _wal(journal):
            await client_ping(peer)
    async with client_of(peer, Policy(), journal=journal) as later:
        (ended,) = await later.resume()
    assert text_of(ended.result) == "done"
    assert peer.of("tools/call")[1].params["requestState"] == "s1"


async def test_what_a_callback_reads_disturbs_no_round(peer: Peer, policy: Policy) -> None:
    page = {"resultType": "input_required", "inputRequests": {"k": question("which page?")}, "requestState": "page"}
    contents = {"contents": [], "resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
    peer.on("resources/read", wire.result(page), wire.result(contents))
    peer.on("tools/call", asking("who?"), wire.result(TEXT))
    person = Person()

    async def read_first(context: object, params: object) -> object:
        if getattr(params, "message", "") == "who?":
            await there.read_resource("test://a")
        return await person(context, params)  # type: ignore[arg-type]

    async with client_of(peer, policy, elicitation_callback=read_first) as there:
        assert text_of(await there.call_tool("look")) == "done"
    assert peer.of("tools/call")[1].params["requestState"] == "state-1"
    assert person.asked == ["which page?", "who?"]


@pytest.mark.parametrize(
    "harm",
    ["DROP TABLE era", "CREATE TRIGGER full BEFORE INSERT ON era BEGIN SELECT RAISE(ABORT, 'no such room'); END"],
)
async def test_a_client_whose_journal_fails_as_it_is_entered_leaves_nothing_behind(
    peer: Peer, policy: Policy, file: Path, journal: str, harm: str
) -> None:
    peer.on("server/discover", wire.error(-32601, "what is that?"))
    async with client_of(peer, policy, journal=journal, mode=LEGACY):
        pass
    before = {*asyncio.all_tasks(), *threading.enumerate()}
    spoil(file, harm)
    with pytest.raises(StoreError, match="no such"):
        async with client_of(peer, policy, Origins(), journal=journal, mode="auto"):
            pass
    left = {*asyncio.all_tasks(), *threading.enumerate()} - before
    assert not [one for one in left if "journal" in repr(one) or "link.py" in repr(one)]
