"""The client in a page against the official SDK's own server, without Milepost behind it: how far it goes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

import pytest
import uvicorn
from mcp.server import MCPServer
from mcp.server.mcpserver.resolve import Elicit, Resolve
from mcp.types import ToolAnnotations
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from browser.conftest import Tab
from browser.peer import JS


class Guests(BaseModel):
    guests: int


@dataclass
class Stock:
    """The SDK's own server. `effects`: what its tool has done."""

    url: str = ""
    effects: list[str] = field(default_factory=list)


async def how_many() -> Elicit[Guests]:
    return Elicit("How many guests?", Guests)


def a_server(effects: list[str]) -> MCPServer:
    mcp = MCPServer("stock")

    @mcp.tool()
    async def book(table: str, asked: Annotated[Guests, Resolve(how_many)]) -> str:
        effects.append(table)
        return f"{table} for {asked.guests}"

    @mcp.tool(annotations=ToolAnnotations(read_only_hint=True))
    async def menu() -> str:
        return "soup"

    @mcp.custom_route("/page", methods=["GET"])
    async def page(request: Request) -> Response:
        return HTMLResponse("<!doctype html><title>stock</title>")

    @mcp.custom_route("/milepost/{name}", methods=["GET"])
    async def module(request: Request) -> Response:
        return Response((JS / request.path_params["name"]).read_bytes(), media_type="text/javascript")

    return mcp


@asynccontextmanager
async def serving(stock: Stock) -> AsyncIterator[None]:
    app = a_server(stock.effects).streamable_http_app()
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    web = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))
    web.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(web.serve(sockets=[listening]))
    stock.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        yield
    finally:
        web.should_exit = True
        await task
        listening.close()


@pytest.fixture
async def stock() -> AsyncIterator[Stock]:
    stock = Stock()
    async with serving(stock):
        yield stock


async def opened(tab: Tab, stock: Stock, mode: str, **options: Any) -> None:
    await tab.open(f"{stock.url}/page")
    started = await tab.start(mode=mode, **options)
    assert "error" not in started, started


def text(outcome: Any) -> Any:
    assert "result" in outcome, outcome
    return outcome["result"]["content"][0]["text"]


@pytest.mark.parametrize(("mode", "era"), [("auto", "modern"), ("handshake", "handshake")])
async def test_a_stock_server_is_called_and_its_questions_answered(tab: Tab, stock: Stock, mode: str, era: str) -> None:
    await opened(tab, stock, mode, answers={"guests": 2})
    assert (await tab.run("() => lab.client.connect()"))["era"] == era
    await tab.call("menu")
    assert text(await tab.outcome()) == "soup"
    await tab.call("book", {"table": "T1"})
    assert text(await tab.outcome(1)) == "T1 for 2"
    assert stock.effects == ["T1"]
    assert len(await tab.events("question")) == 1


async def test_an_open_question_of_a_stock_modern_server_survives_a_reload(tab: Tab, stock: Stock) -> None:
    await opened(tab, stock, "modern")
    await tab.call("book", {"table": "T2"})
    await tab.seen("question")
    await tab.reload()
    await tab.start(mode="modern")
    assert len(await tab.resume()) == 1
    await tab.seen("question")
    await tab.answer({"guests": 3})
    assert text(await tab.outcome()) == "T2 for 3"
    assert stock.effects == ["T2"]


@pytest.mark.parametrize(("mode", "hold", "effects"), [("modern", "acks", ["T3"]), ("handshake", "answers", [])])
async def test_a_reload_in_the_middle_of_a_stock_servers_call_ends_in_unknown_and_not_in_a_second_effect(
    tab: Tab, stock: Stock, mode: str, hold: str, effects: list[str]
) -> None:
    await opened(tab, stock, mode, hold=hold)
    await tab.call("book", {"table": "T3"})
    await tab.seen("question")
    await tab.answer_soon({"guests": 4})
    await tab.seen("held")
    await tab.reload()
    await tab.start(mode=mode)
    assert len(await tab.resume()) == 1
    error = (await tab.outcome())["error"]
    assert error["name"] == "OutcomeUnknown"
    assert [answer["content"] for answer in error["kept"]["answers"].values()] == [{"guests": 4}]
    assert stock.effects == effects
