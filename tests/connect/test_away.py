"""A remote that is away: the proxy starts all the same, says what is wrong, and goes on once the remote is there."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
import pytest
from mcp import Client, MCPError

from connect.running import HOSTS, LIMIT, REMOTES, Stock, hosting, listening, piped, raw, stock, through, web
from connect.test_travel import TARGET
from processes import free_port, served

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning"),
]


@pytest.mark.parametrize("mode", HOSTS)
async def test_a_host_is_told_the_url_and_the_reason_and_later_the_tools(mode: str, tmp_path: Path) -> None:
    remote = Stock("stock_shop.py", tmp_path / "ledger")
    changed = anyio.Event()

    async def message(told: Any) -> None:
        if isinstance(told, types.ToolListChangedNotification):
            changed.set()

    era = "legacy" if mode == "legacy" else "auto"
    with anyio.fail_after(LIMIT * 2):
        async with Client(piped(tmp_path, remote.url), mode=era, message_handler=message, cache=None) as client:
            with pytest.raises(MCPError) as caught:
                await client.list_tools()
            assert remote.url in str(caught.value)
            assert caught.value.data["url"] == remote.url
            assert "connect" in caught.value.data["reason"]
            try:
                await remote.start()
                tools = await _once_there(client)
                if mode == "legacy":
                    await changed.wait()
            finally:
                await remote.kill()
    assert "echo" in [tool.name for tool in tools]


async def test_a_key_in_the_urls_query_is_told_to_no_host_and_no_log(tmp_path: Path) -> None:
    remote = Stock("stock_shop.py", tmp_path / "ledger")
    async with (
        asyncio.timeout(LIMIT * 2),
        listening(tmp_path, f"{remote.url}?key=s3cret") as proxy,
        Client(proxy.url, cache=None) as client,
    ):
        with pytest.raises(MCPError, match=f"The remote server {remote.url} can't be reached") as caught:
            await client.list_tools()
        assert "s3cret" not in f"{caught.value} {caught.value.data}"
        try:
            await remote.start()
            await _once_there(client)
        finally:
            await remote.kill()
    assert "the remote is there" in proxy.log.read_text()
    assert "s3cret" not in proxy.log.read_text()


async def _once_there(client: Client) -> list[types.Tool]:
    while True:
        try:
            return (await client.list_tools()).tools
        except MCPError:
            await asyncio.sleep(0.1)


async def test_a_remote_that_was_there_before_is_introduced_while_it_is_away(tmp_path: Path) -> None:
    async with stock("stock_shop.py", tmp_path) as remote:
        async with raw(piped(tmp_path, remote.url)) as host:
            there = await host.handshake({})
            await host.leave()
        await remote.kill()
        async with raw(piped(tmp_path, remote.url)) as host:
            away = await host.handshake({})
    assert there == away
    assert away["serverInfo"]["title"] == "The shop"


@pytest.mark.parametrize("era", REMOTES)
async def test_a_stock_remote_may_be_killed_between_calls(era: str, tmp_path: Path) -> None:
    async def five(context: Any, params: Any) -> types.ElicitResult:
        return types.ElicitResult(action="accept", content={"day": 5})

    with anyio.fail_after(LIMIT * 2):
        async with (
            stock("stock_shop.py", tmp_path) as remote,
            through("http", tmp_path, remote.url, "--era", era, elicitation_callback=five) as client,
        ):
            for _ in range(3):
                result = await client.call_tool("ask", {})
                assert isinstance(result.content[0], types.TextContent)
                assert result.content[0].text == "accept {'day': 5}"
                await remote.restart()
    assert remote.wrote == ["accept {'day': 5}"] * 3


@pytest.mark.parametrize("era", REMOTES)
async def test_the_host_is_told_where_the_outcome_is_unknown_and_may_call_again(era: str, tmp_path: Path) -> None:
    said: list[str] = []

    async def lost(client: Client) -> None:
        with pytest.raises(MCPError) as caught:
            await client.call_tool("forever", {})
        said.append(str(caught.value))

    with anyio.fail_after(LIMIT * 2):
        async with (
            stock("stock_shop.py", tmp_path) as remote,
            through("http", tmp_path, remote.url, "--era", era) as client,
        ):
            for count in (1, 2):
                async with anyio.create_task_group() as group:
                    group.start_soon(lost, client)
                    while remote.wrote.count("begun") < count:
                        await asyncio.sleep(0.02)
                    await remote.restart()
    assert ["outcome is unknown" in words for words in said] == [True, True]
    assert remote.wrote.count("begun") == 2, "never again unasked"


@pytest.mark.parametrize("mode", HOSTS)
async def test_a_session_over_http_outlives_the_proxy(mode: str, tmp_path: Path) -> None:
    port = free_port()
    era = "legacy" if mode == "legacy" else "auto"
    with anyio.fail_after(LIMIT * 2):
        async with stock("stock_shop.py", tmp_path) as remote, AsyncExitStack() as proxies:
            proxy = await proxies.enter_async_context(listening(tmp_path, remote.url, port=port))
            async with Client(proxy.url, mode=era, cache=None) as client:
                assert (await client.call_tool("echo", {"n": 1})).structured_content is not None
                proxy.kill()
                await proxy.process.wait()
                await proxies.enter_async_context(listening(tmp_path, remote.url, port=port))
                assert (await client.call_tool("echo", {"n": 2})).structured_content is not None


@pytest.mark.parametrize("mode", HOSTS)
async def test_what_may_have_changed_unheard_is_told(mode: str, tmp_path: Path) -> None:
    heard: list[str] = []

    async def message(told: Any) -> None:
        if isinstance(told, types.ServerNotification):
            heard.append(told.method)

    era = "legacy" if mode == "legacy" else "auto"
    with anyio.fail_after(LIMIT * 2):
        async with (
            stock("stock_shop.py", tmp_path) as remote,
            hosting(tmp_path, remote.url, "modern") as proxy,
            Client(proxy, mode=era, message_handler=message, cache=None) as client,
            AsyncExitStack() as streams,
        ):
            await client.list_tools()
            if mode != "legacy":
                await streams.enter_async_context(client.listen(tools_list_changed=True))
            while "notifications/tools/list_changed" not in heard:  # until all streams are there
                await client.call_tool("change", {})
                await asyncio.sleep(0.05)
            heard.clear()
            while "notifications/tools/list_changed" not in heard:  # a host whose stream is just not there misses one
                await remote.restart()
                with anyio.move_on_after(10):
                    while "notifications/tools/list_changed" not in heard:
                        await asyncio.sleep(0.05)


async def test_a_remote_that_is_stopped_properly_is_listened_to_again(tmp_path: Path) -> None:
    changed = asyncio.Event()

    async def message(told: Any) -> None:
        if isinstance(told, types.ToolListChangedNotification):
            changed.set()

    folder = tmp_path / "proxy"
    folder.mkdir()
    with anyio.fail_after(LIMIT * 2):
        async with (
            served(TARGET, tmp_path, env={"TRAVEL_OPS_DB": str(tmp_path / "travel.db")}) as remote,
            hosting(folder, remote.url, "modern") as proxy,
            Client(proxy, mode="legacy", message_handler=message, cache=None) as client,
        ):
            await client.list_tools()
            while not changed.is_set():  # the first time it may not have been listened to yet
                await remote.stop()
                await remote.start()
                with anyio.move_on_after(5):
                    await changed.wait()


async def test_a_request_in_the_meantime_is_told_so_in_this_process_too(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}/mcp"
    with anyio.fail_after(LIMIT):
        async with hosting(tmp_path, url, "auto") as proxy, Client(proxy, cache=None) as client:
            assert client.server_info is not None
            assert client.server_info.name in url
            with pytest.raises(MCPError, match="can't be reached"):
                await client.call_tool("echo", {})


async def test_a_remote_of_another_era_than_was_said_is_told_from_one_that_is_away(tmp_path: Path) -> None:
    async def older(scope: Any, receive: Any, send: Any) -> None:
        """As servers do that know neither the method nor the version."""
        body = b'{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,"message":"Bad Request: no session"}}'
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 400, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    with anyio.fail_after(LIMIT):
        async with web(older) as url, hosting(tmp_path, url, "modern") as proxy, Client(proxy, cache=None) as client:
            with pytest.raises(MCPError, match=r"does not speak 2026-07-28.*try --era auto"):
                await client.list_tools()
