"""How far a journal goes with handshake-era servers that aren't Milepost: the last rows of docs/client.md's table."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from client.talking import LEGACY
from client.test_resume import client as client_process
from milepost.client import unfinished
from processes import ROOT, free_port

pytestmark = pytest.mark.anyio

LIMIT = 40.0


@dataclass
class Desk:
    url: str
    ledger: Path

    @property
    def wrote(self) -> list[str]:
        return self.ledger.read_text().splitlines() if self.ledger.exists() else []


@asynccontextmanager
async def stock(kind: str, folder: Path) -> AsyncIterator[Desk]:
    desk = Desk(f"http://127.0.0.1:{(port := free_port())}/mcp", folder / "ledger")
    process = await asyncio.create_subprocess_exec(
        sys.executable, Path(__file__).with_name("stock_desk.py"), kind, str(port), str(desk.ledger), cwd=ROOT
    )
    try:
        async with httpx2.AsyncClient() as http, asyncio.timeout(LIMIT):
            while True:
                try:
                    await http.get(desk.url)
                    break
                except httpx2.TransportError:
                    assert process.returncode is None
                    await asyncio.sleep(0.05)
        yield desk
    finally:
        if process.returncode is None:
            os.kill(process.pid, signal.SIGKILL)
        await process.wait()


@pytest.fixture
def journal(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'client.db'}"


async def test_with_an_event_store_and_a_living_session_the_same_question_is_taken_up(
    tmp_path: Path, journal: str
) -> None:
    async with stock("fastmcp", tmp_path) as desk:
        async with client_process("call", desk.url, journal, LEGACY) as first:
            await first.until("asked trip: question 0?")
            await first.answer("Ada")
            await first.until("asked trip: question 1?")
        async with client_process("resume", desk.url, journal, LEGACY) as second:
            await second.until("asked trip: question 1?")
            await second.answer("Bob")
            assert await second.until("ended") == "ended arrange booked Ada Bob"
        assert "asked trip: question 0?" not in second.said
        assert desk.wrote == ["trip Ada Bob"]


async def test_without_one_the_outcome_is_unknown_and_the_call_is_not_made_again(tmp_path: Path, journal: str) -> None:
    async with stock("sdk", tmp_path) as desk:
        async with client_process("call", desk.url, journal, LEGACY) as first:
            await first.until("asked trip: question 0?")
            await first.answer("Ada")
            await first.until("asked trip: question 1?")
        async with client_process("resume", desk.url, journal, LEGACY) as second:
            assert await second.until("ended") == "ended arrange OutcomeUnknown"
            assert await second.until("pending") == "pending 1"  # it holds an answer
        assert desk.wrote == []
    assert [one.name for one in unfinished(journal)] == ["arrange"]
