"""What is not a Milepost server, not there, or not in time."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx2
import pytest

from calling.ptys import LIMIT, Ran, at_terminal, closed, opened, script
from processes import ROOT, free_port

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
async def stock(tmp_path: Path) -> AsyncIterator[str]:
    """The URL of a server of the official SDK."""
    port = free_port()
    with (tmp_path / "stock.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(ROOT / "tests" / "calling" / "stock.py"), str(port), stdout=log, stderr=log
        )
    url = f"http://127.0.0.1:{port}/mcp"
    try:
        async with asyncio.timeout(LIMIT), httpx2.AsyncClient() as http:
            while True:
                assert process.returncode is None, (tmp_path / "stock.log").read_text()
                try:
                    await http.get(url)
                    break
                except httpx2.TransportError:
                    await asyncio.sleep(0.05)
        yield url
    finally:
        process.kill()
        await process.wait()


async def test_a_server_of_the_official_sdk_is_called_in_the_same_way(tmp_path: Path, stock: str) -> None:
    async with at_terminal(tmp_path, "call", stock, "trip", "--era", "handshake") as person:
        await person.sees("Day (a whole number) ›")
        person.types("5")
        await person.sees("all is \\x1b[2J well")
        assert (await person.ends(), person.result) == (0, "accept day=5\n")
    (tmp_path / "answers.json").write_text('[{"day": 7}]')
    ran = await script(tmp_path, "call", stock, "trip", "--era", "handshake", "--answers", "answers.json")
    assert (ran.code, ran.out) == (0, "accept day=7\n")
    assert "▸ looking (1 of 2)" in ran.err


async def test_a_call_of_another_server_that_is_left_says_what_is_known(tmp_path: Path, stock: str) -> None:
    """Such a server can't be gone on with from another process unless its stream can be read on: it has no journal."""
    ran = await script(tmp_path, "call", stock, "trip", "--era", "handshake")
    assert ran.code == 3
    (tmp_path / "answers.json").write_text('[{"day": 7}]')
    ran = await script(tmp_path, "resume", "--answers", "answers.json")
    assert (ran.code, ran.out) == (4, "")
    assert "what came of the call is not known" in ran.err
    assert (await script(tmp_path, "resume", "--forget")).code == 0
    assert (await script(tmp_path, "resume", "--list")).out == ""


def test_a_server_that_is_not_there_is_exit_code_2(here: Callable[..., Ran]) -> None:
    ran = here("call", f"http://127.0.0.1:{free_port()}/mcp", "trip", "--timeout", "1")
    assert (ran.code, ran.out) == (2, "")
    assert "Traceback" not in ran.err
    assert here("resume", "--list", "--json").out == "[]\n"


async def test_a_call_that_takes_longer_than_it_may_is_exit_code_4(tmp_path: Path, counter: str, gate: Path) -> None:
    closed(gate)
    ran = await script(tmp_path, "call", counter, "work", "--arg", "label=late", "--timeout", "1s")
    opened(gate)
    assert (ran.code, ran.out) == (4, "")
    assert "timed out after 1 s of work" in ran.err


def test_a_state_directory_that_can_not_be_used_is_one_sentence(
    here: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    ran = here("resume", "--list")
    assert ran.code == 2
    assert "can't be used" in ran.err
    assert "name a journal with --journal" in ran.err


def test_a_state_directory_that_is_not_absolute_is_not_used(
    here: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert json.loads(here("resume", "--list", "--json").out) == []
    assert (tmp_path / "home" / ".local" / "state" / "milepost" / "client.db").is_file()
