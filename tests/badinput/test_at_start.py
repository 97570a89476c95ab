"""What a server can't start with: one sentence that says what to do, exit code 2, and the store as it was."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from badinput.shop import LIMIT, SHOP, buying, milepost, open_shop

pytestmark = pytest.mark.anyio


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(SHOP)
    return tmp_path


async def refused(folder: Path, *arguments: str) -> str:
    """The one line that a command says before it exits with 2."""
    code, said = await milepost(*arguments, cwd=folder)
    assert code == 2, said
    assert said.startswith("milepost: "), said
    assert said.count("\n") == 1, said
    return said


async def test_a_port_in_use_says_which_and_what_to_do(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = await refused(folder, "serve", "shop.py:mcp", "--port", str(port))
    assert f"port {port} is in use" in said
    assert "--port" in said


async def test_a_store_of_a_newer_schema_is_left_as_it_was(tmp_path: Path) -> None:
    async with asyncio.timeout(LIMIT):
        async with open_shop(tmp_path) as shop:
            await shop.ask(buying("lamp"))
        store = tmp_path / "milepost.db"
        with contextlib.closing(sqlite3.connect(store)) as database, database:
            database.execute("UPDATE store SET schema = 999, min_reader = 999")
            before = database.execute("SELECT * FROM store").fetchall()
        for arguments in (["serve", "shop.py:mcp", "--port", "0"], ["runs", "list"]):
            said = await refused(tmp_path, *arguments, "--store", f"sqlite:///{store}")
            assert "needs a Milepost that knows at least schema 999" in said
            assert "Upgrade Milepost, or use another store" in said
        with contextlib.closing(sqlite3.connect(store)) as database:
            assert database.execute("SELECT * FROM store").fetchall() == before
            assert database.execute("SELECT count(*) FROM run").fetchone() == (1,)


@pytest.fixture
def shared_place() -> Iterator[Path]:
    """A directory that another user reaches (pytest keeps its own closed)."""
    with tempfile.TemporaryDirectory() as place:
        yield Path(place)
        Path(place).chmod(0o755)


AS_NOBODY = """
import os, sys
import encodings.idna, mcp.server.mcpserver, milepost.cli, milepost.commands
if os.geteuid() == 0:
    os.setuid(65534)
milepost.cli.main(sys.argv[1:])
"""
"""`milepost` without the rights of root, who may write everything. Imported first: nobody may not read our code."""


def test_a_store_that_is_read_only_is_named_and_keeps_its_runs(shared_place: Path, tmp_path: Path) -> None:
    asyncio.run(_ask_once(tmp_path))
    (shared_place / "shop.py").write_text(SHOP)
    store = shared_place / "milepost.db"
    store.write_bytes((tmp_path / "milepost.db").read_bytes())
    before = store.read_bytes()
    store.chmod(0o444)
    shared_place.chmod(0o555)
    arguments = ["serve", "shop.py:mcp", "--port", "0", "--store", f"sqlite:///{store}"]
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, *arguments],
        cwd=shared_place, env={**os.environ, "LEDGER": "/dev/null"},
        capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done
    assert done.stderr == f"milepost: the store {store} is read-only: make it writable for this user\n"
    assert store.read_bytes() == before


async def _ask_once(folder: Path) -> None:
    async with asyncio.timeout(LIMIT), open_shop(folder) as shop:
        await shop.ask(buying("lamp"))
