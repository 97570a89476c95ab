"""The official TypeScript clients against the travel assistant: both major versions, both eras, and a kill in between.

The clients are installed from the npm registry on first use, pinned by package-lock.json. Without npm these tests fail,
and say so: a client that nobody tried is not a client that works.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import shutil
import sqlite3
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from processes import ROOT, served

HERE = Path(__file__).parent
TARGET = str(ROOT / "examples" / "travel_ops" / "server.py")
CLIENTS = ["v1", "v2-legacy", "v2-modern"]
ANSWERS = {"leg": "1", "day": "2027-03-23", "flight": "MP103", "go_ahead": True}
LIMIT = 60.0

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="session", autouse=True)
def node_modules() -> None:
    """Both clients, as the lock file names them. One worker of pytest-xdist installs, the others wait for it."""
    with (HERE / "package-lock.json").open() as locked:
        fcntl.flock(locked, fcntl.LOCK_EX)
        install_clients()


def install_clients() -> None:
    stamp = HERE / "node_modules" / ".milepost-lock"
    wanted = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.fail(
            "npm or node was not found: these tests run the TypeScript clients on Node 20 or newer. Install it."
        )
    command = [npm, "ci", "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run(command, cwd=HERE, check=True, timeout=150, stdin=subprocess.DEVNULL)
    stamp.write_text(wanted)


class Conversation:
    """A running client; each question is answered by its field's name."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.asked: list[str] = []

    async def read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), LIMIT)
        assert line, "the client ended without a result"
        said: dict[str, Any] = json.loads(line)
        if "question" in said:
            self.asked.append(said["question"])
        return said

    async def answer(self, said: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        content = {name: ANSWERS[name] for name in said["fields"]}
        self._process.stdin.write(json.dumps(content).encode() + b"\n")
        await self._process.stdin.drain()


@asynccontextmanager
async def talking(kind: str, url: str, pnr: str) -> AsyncIterator[Conversation]:
    process = await asyncio.create_subprocess_exec(
        "node", "client.mjs", kind, url, pnr, cwd=HERE, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield Conversation(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def effects(data: Path) -> list[tuple[str, int]]:
    with closing(sqlite3.connect(data)) as db:
        return db.execute("SELECT kind, calls FROM effects ORDER BY n").fetchall()


@pytest.mark.parametrize("kind", CLIENTS)
@pytest.mark.parametrize("killed_at", [None, "flight"], ids=["unharmed", "killed"])
async def test_a_typescript_client_is_led_through_the_conversation(
    kind: str, killed_at: str | None, tmp_path: Path
) -> None:
    data = tmp_path / "travel.db"
    env = {"TRAVEL_OPS_DB": str(data), "MILEPOST_HTTP_RETRY": "4s"}
    async with served(f"{TARGET}:mcp", tmp_path, env=env) as server, talking(kind, server.url, "QK7P2M") as client:
        while "question" in (said := await client.read()):
            if killed_at in said["fields"]:
                await server.restart()
            await client.answer(said)
    assert "result" in said, said
    assert said["result"]["structuredContent"]["status"] == "changed"
    assert said["result"]["structuredContent"]["letter"] == "A letter from TypeScript."
    assert len(client.asked) == len(set(client.asked)) == 4
    assert effects(data) == [("hold_seat", 1), ("rebook", 1), ("send_letter", 1)]
