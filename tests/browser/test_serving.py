"""How a server serves the browser's module."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from mcp.server import MCPServer
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from milepost.app import Milepost
from milepost.browser.files import ENTRY, BrowserFiles


@asynccontextmanager
async def visiting(server: MCPServer, folder: Path, **flags: object) -> AsyncIterator[httpx2.AsyncClient]:
    app = Milepost(server, store=f"sqlite:///{folder / 'm.db'}", **flags)
    async with (
        app.running(),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://127.0.0.1") as visitor,
    ):
        yield visitor


async def test_the_module_is_served_with_its_type_and_asked_for_at_each_load(tmp_path: Path) -> None:
    async with visiting(MCPServer("s"), tmp_path) as visitor:
        got = await visitor.get(ENTRY)
        assert got.status_code == 200
        assert got.headers["content-type"] == "text/javascript; charset=utf-8"
        assert got.headers["cache-control"] == "no-cache"
        assert "export class Client" in got.text
        for part in ("wire.js", "forms.js", "modern.js", "handshake.js", "errors.js"):
            assert (await visitor.get(f"/milepost/{part}")).status_code == 200


async def test_what_the_browser_has_is_not_sent_again(tmp_path: Path) -> None:
    async with visiting(MCPServer("s"), tmp_path) as visitor:
        tag = (await visitor.get(ENTRY)).headers["etag"]
        for named in (tag, f"W/{tag}", f'"other", {tag}', "*"):
            again = await visitor.get(ENTRY, headers={"if-none-match": named})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert (await visitor.get(ENTRY, headers={"if-none-match": '"other"'})).status_code == 200


async def test_it_is_only_read(tmp_path: Path) -> None:
    async with visiting(MCPServer("s"), tmp_path) as visitor:
        head = await visitor.head(ENTRY)
        assert (head.status_code, head.content) == (200, b"")
        assert int(head.headers["content-length"]) == len((await visitor.get(ENTRY)).content)
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            refused = await visitor.request(method, ENTRY)
            assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "path",
    [
        "/milepost/",
        "/milepost/files.py",
        "/milepost/../files.py",
        "/milepost/..%2ffiles.py",
        "/milepost/%2e%2e/files.py",
        "/milepost//client.js",
        "/milepost/client.js/",
        "/milepost/js/client.js",
        "/milepost/client.js%00",
    ],
)
async def test_no_path_leads_to_anything_else(tmp_path: Path, path: str) -> None:
    async with visiting(MCPServer("s"), tmp_path) as visitor:
        assert (await visitor.get(path)).status_code == 404
    assert not BrowserFiles().has(path)


async def test_an_authors_own_routes_come_first(tmp_path: Path) -> None:
    mine = MCPServer("s")

    @mine.custom_route(ENTRY, methods=["GET"])
    async def own(request: Request) -> Response:
        return PlainTextResponse("mine")

    @mine.custom_route("/milepost/mine.js", methods=["GET"])
    async def beside(request: Request) -> Response:
        return PlainTextResponse("beside")

    async with visiting(mine, tmp_path) as visitor:
        assert (await visitor.get(ENTRY)).text == "mine"
        assert (await visitor.get("/milepost/mine.js")).text == "beside"
        assert "SseParser" in (await visitor.get("/milepost/wire.js")).text


async def test_it_can_be_turned_off(tmp_path: Path) -> None:
    async with visiting(MCPServer("s"), tmp_path, http={"browser_client": False}) as visitor:
        assert (await visitor.get(ENTRY)).status_code == 404
