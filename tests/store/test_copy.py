"""`milepost store copy`: from one machine to many, without losing a run; and what `check`, `sweep`, `migrate` say."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from fakes import FakeClock
from lab.postgres import PostgresServer
from milepost import cli
from milepost.core.attempts import Batch
from milepost.core.errors import ConfigurationError
from milepost.core.outside import Find, Verdict
from milepost.core.records import Delivery, EventKind, NewEvent, Session
from milepost.core.versions import EVERY_TOOL
from milepost.store import SqliteStore, open_store
from milepost.store.postgres import PostgresStore
from milepost.store.postgres.checking import Server, findings
from milepost.store.postgres.sqltext import SqlText
from milepost.store.settings import PostgresSettings
from milepost.storekeeping import copied
from store.making import (
    ANN,
    BOB,
    DONE,
    LEASE,
    accept,
    claim_one,
    entry,
    first_stream,
    ready,
    start,
    state_of,
    told,
    waiting,
)

_schemas = itertools.count(1)

pytestmark = pytest.mark.usefixtures("logging_as_before")


@pytest.fixture
def target_url(postgres_url: str) -> str:
    return f"{postgres_url}?schema=copied{next(_schemas)}"


async def filled(path: Path) -> SqliteStore:
    store = SqliteStore(path)
    await store.open()
    await store.join("r1")
    await store.save_session(Session("s1", "2025-11-25", {"clientInfo": {"name": "t"}}, ANN), cap=10)
    await store.give(EVERY_TOOL, {"blue": 1.0})
    return store


async def test_every_run_goes_on_where_it_was(tmp_path: Path, target_url: str) -> None:
    old = await filled(tmp_path / "m.db")
    asked, running, due = await waiting(old, 1, 2), await start(old), await ready(old)
    batch = Batch([entry(1, value='"with \x00 in it"')], events=[NewEvent(EventKind.NOTIFY, {"n": 1})], stage="paying")
    await old.append(running.fence, batch, lease=LEASE)
    done = await start(old)
    await old.settle(done.fence, DONE)
    await old.close_stream(first_stream(done.run.id), delivery=Delivery.SENT)
    await old.answer(asked, {1: accept()}, by=ANN, via="mrtr")
    secret = old.secret("sessions")
    before = {run.id: run for run in await old.find(Find())}
    events = {run_id: await told(old, run_id) for run_id in before}
    await old.leave("r1")

    new = PostgresStore(target_url, settings=PostgresSettings(pool=3))
    await new.open()
    await copied(old, new)
    await old.aclose()
    await new.aclose()
    new = PostgresStore(target_url, settings=PostgresSettings(pool=3))  # the secrets are read at the opening
    await new.open()
    await new.join("p1")
    assert {run.id: run for run in await new.find(Find())} == before
    assert {run_id: await told(new, run_id) for run_id in before} == events
    assert new.secret("sessions") == secret
    session = await new.session("s1")
    assert session is not None
    assert session.owner == ANN
    assert await new.given() == {EVERY_TOOL: {"blue": 1.0}}
    assert await new.answer(asked, {1: accept()}, by=ANN, via="x") == {1: Verdict.REPEATED}
    assert await new.answer(asked, {1: accept()}, by=BOB, via="x") == {1: Verdict.CLOSED}
    assert await new.answer(asked, {2: accept()}, by=ANN, via="x") == {2: Verdict.ACCEPTED}
    claims = {claim.run.id: claim for claim in [await claim_one(new, "p1") for _ in range(3)] if claim is not None}
    assert set(claims) == {asked, running.run.id, due}
    assert claims[running.run.id].takeover
    loaded = await new.load(running.run.id)
    assert loaded is not None
    assert [kept.value for kept in loaded.entries] == ['"with ? in it"']
    await new.append(claims[running.run.id].fence, Batch([entry(2)]), lease=LEASE)
    assert await state_of(new, done.run.id) == "completed"
    await new.aclose()


async def test_a_source_on_which_a_server_works_is_not_copied(tmp_path: Path, target_url: str) -> None:
    old, new = await filled(tmp_path / "m.db"), PostgresStore(target_url)
    await new.open()
    with pytest.raises(ConfigurationError, match=r"a server works on the source \(r1\)"):
        await copied(old, new)
    with pytest.raises(ConfigurationError, match="copy goes from sqlite"):
        await copied(new, old)
    await old.aclose()
    await new.aclose()


async def test_a_target_that_is_not_empty_is_left_as_it_was(tmp_path: Path, target_url: str) -> None:
    old, new = await filled(tmp_path / "m.db"), PostgresStore(target_url)
    await new.open()
    await ready(old)
    kept = await ready(new)
    await old.leave("r1")
    with pytest.raises(ConfigurationError, match="is not empty"):
        await copied(old, new)
    assert [run.id for run in await new.find(Find())] == [kept]
    await old.aclose()
    await new.aclose()


# --- the commands ---------------------------------------------------------------------------------


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    printed = capsys.readouterr()
    assert ended.value.code == code, printed.err
    return printed.out + printed.err


def test_a_store_is_made_checked_swept_and_copied(
    tmp_path: Path, target_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = f"sqlite:///{tmp_path}/m.db"
    assert "there is no store at" in said(capsys, "store", "check", source, code=2)
    assert "is up to date" in said(capsys, "store", "migrate", source)
    assert "the file is whole" in said(capsys, "store", "check", source)
    assert "0 timers fired" in said(capsys, "store", "sweep", source)
    assert "is up to date" in said(capsys, "store", "migrate", target_url)
    checked = said(capsys, "store", "check", target_url)
    assert "commits are durable" in checked
    assert "no standby follows" in checked
    assert "milepost@" not in checked
    done = said(capsys, "store", "copy", source, target_url)
    assert "runs: none. Start the servers with --store postgresql://" in done


def test_what_puts_the_promises_at_risk_is_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    with PostgresServer(settings={"fsync": "off"}) as server:
        assert "RISK  fsync or full_page_writes is off" in said(capsys, "store", "check", server.url(), code=1)
    with PostgresServer() as server:
        server.add_standby("second", synchronous=False)
        assert "commits wait for none" in said(capsys, "store", "check", server.url(), code=1)
        server.set("synchronous_standby_names", "second")
        assert "commits wait for a standby" in said(capsys, "store", "check", server.url())
        server.set("synchronous_commit", "off")
        assert "synchronous_commit is off" in said(capsys, "store", "check", server.url(), code=1)


async def test_builds_and_clocks_that_differ_are_told(target_url: str, postgres: PostgresServer) -> None:
    store = open_store(target_url, clock=FakeClock())
    assert isinstance(store, PostgresStore)
    await store.open()
    schema = store._sql.schema
    postgres.sql(f"CREATE SCHEMA {schema}_0123456789")
    findings = " ".join(finding.what for finding in await store.check())
    assert f"functions of other builds: {schema}_0123456789" in findings
    assert "s off this machine's" in findings
    await store.aclose()


def test_a_server_that_is_older_than_the_tested_ones_says_what_to_do() -> None:
    old = Server(140011, "14.11", True, "on", "", 0, 100, 0.0)
    first = findings(old, SqlText("milepost"), [], {}, wall=0.0)[0]
    assert not first.fine
    assert "upgrade it to 15 or newer" in first.what
