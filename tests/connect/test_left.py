"""A call that a proxy left unfinished, and the same call made again: a stock server of each era behind it."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
import pytest
from mcp import Client, MCPError
from mcp.types import ElicitResult

from connect.running import LIMIT, hosting, stock
from milepost.client.journal import unfinished

pytestmark = pytest.mark.timeout(180)


async def six(context: Any, params: Any) -> ElicitResult:
    return ElicitResult(action="accept", content={"day": 6})


async def asked_and_left(folder: Path, url: str, era: str) -> None:
    """A call whose question was seen, and not answered when its proxy ended."""
    seen = asyncio.Event()

    async def look(context: Any, params: Any) -> ElicitResult:
        seen.set()
        await asyncio.Event().wait()
        raise AssertionError

    async def call(at: str) -> None:
        async with Client(at, mode="legacy", elicitation_callback=look) as client:
            await client.call_tool("ask", {})

    async with AsyncExitStack() as proxy:
        calling = asyncio.create_task(call(await proxy.enter_async_context(hosting(folder, url, era))))
        await seen.wait()
    calling.cancel()
    await asyncio.gather(calling, return_exceptions=True)
    assert len(unfinished(f"sqlite:///{folder / 'client.db'}")) == 1


async def test_the_round_of_a_modern_server_is_gone_on_with(tmp_path: Path) -> None:
    heard: list[float] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        heard.append(done)

    with anyio.fail_after(LIMIT):
        async with stock("stock_shop.py", tmp_path) as remote:
            await asked_and_left(tmp_path, remote.url, "modern")
            async with (
                hosting(tmp_path, remote.url, "modern") as proxy,
                Client(proxy, elicitation_callback=six) as client,
            ):
                result = await client.call_tool("ask", {}, progress_callback=progress)
    assert isinstance(result.content[0], types.TextContent)
    assert result.content[0].text == "accept {'day': 6}"
    assert remote.wrote == ["accept {'day': 6}"]
    assert unfinished(f"sqlite:///{tmp_path / 'client.db'}") == []


async def test_a_journal_that_can_not_be_written_is_what_the_host_is_told(tmp_path: Path) -> None:
    journal = tmp_path / "client.db"
    with anyio.fail_after(LIMIT):
        async with (
            stock("stock_shop.py", tmp_path) as remote,
            hosting(tmp_path, remote.url, "handshake") as proxy,
            Client(proxy, cache=None) as client,
        ):
            await client.call_tool("count", {})
            with closing(sqlite3.connect(journal)) as other:
                other.execute("ALTER TABLE call RENAME TO gone")
            with pytest.raises(MCPError, match=r"tools/call can't be kept, .*: the journal .*no such"):
                await client.call_tool("count", {})
            with closing(sqlite3.connect(journal)) as other:
                other.execute("ALTER TABLE gone RENAME TO call")
            assert not (await client.call_tool("count", {})).is_error


async def test_what_a_handshake_server_did_is_unknown_and_said_once(tmp_path: Path) -> None:
    with anyio.fail_after(LIMIT):
        async with stock("stock_shop.py", tmp_path) as remote:
            await asked_and_left(tmp_path, remote.url, "handshake")
            async with (
                hosting(tmp_path, remote.url, "handshake") as proxy,
                Client(proxy, elicitation_callback=six) as client,
            ):
                with pytest.raises(MCPError, match="outcome is unknown"):
                    await client.call_tool("ask", {})
                result = await client.call_tool("ask", {})
    assert isinstance(result.content[0], types.TextContent)
    assert result.content[0].text == "accept {'day': 6}"
    assert remote.wrote == ["accept {'day': 6}"]


async def test_a_call_that_nobody_comes_back_for_is_forgotten_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with anyio.fail_after(LIMIT):
        async with stock("stock_shop.py", tmp_path) as remote:
            await asked_and_left(tmp_path, remote.url, "modern")
            monkeypatch.setattr("milepost.connect.forward.KEEP_LEFT", 0.0)
            async with hosting(tmp_path, remote.url, "modern") as proxy, Client(proxy) as client:
                await client.list_tools()
    assert unfinished(f"sqlite:///{tmp_path / 'client.db'}") == []
