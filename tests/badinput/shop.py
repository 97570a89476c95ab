"""A small server as a file, so that tests can edit it between two of its processes, and how they talk to it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from processes import ServerProcess, served
from wire.serving import Raw, call

LIMIT = 60.0
"""Seconds that any wait of these tests may take."""

SHOP = '''
import os
from pathlib import Path

from pydantic import BaseModel

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from milepost import step, workflow

mcp = MCPServer("shop")
LEDGER = Path(os.environ["LEDGER"])


class Sure(BaseModel):
    sure: bool


def happened(what: str) -> None:
    with LEDGER.open("a") as ledger:
        ledger.write(what + "\\n")


@step
async def reserve(item: str) -> str:
    happened(f"reserve {item}")
    return f"reserved {item}"


@step
async def pay(item: str) -> str:
    happened(f"pay {item}")
    return f"paid {item}"


@step
async def open_socket() -> object:
    happened("opened")
    return object()


@mcp.tool()
@workflow
async def buy(item: str, ctx: Context) -> str:
    """Reserves, asks, pays."""
    held = await reserve(item)
    answer = await ctx.elicit(f"Buy the {item}?", Sure)
    return f"{held}, {await pay(item)}" if answer.action == "accept" and answer.data.sure else "nothing bought"


@mcp.tool()
@workflow
async def odd(ctx: Context) -> str:
    """Has a step whose value can't be stored."""
    await open_socket()
    return "never"


@mcp.tool()
async def add(a: int, b: int) -> int:
    return a + b
'''

ASKABLE = {"elicitation": {"form": {}}}


@dataclass
class Shop:
    """The file, its server process, and a client of bare HTTP."""

    folder: Path
    server: ServerProcess
    raw: Raw

    @property
    def ledger(self) -> list[str]:
        """What the steps have done outside, in order."""
        path = self.folder / "ledger"
        return path.read_text().splitlines() if path.exists() else []

    async def edit(self, old: str, new: str) -> None:
        """Change the author's code and serve it: the old process is killed first."""
        path = self.folder / "shop.py"
        text = path.read_text()
        assert old in text
        await self.server.kill()
        path.write_text(text.replace(old, new))
        await self.server.start()

    async def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """One leg of a modern call; its result."""
        response = await self.raw.modern(message, ASKABLE)
        assert response.status_code == 200, response.text
        return whole(response)["result"]

    async def runs(self, *arguments: str) -> tuple[int, str]:
        """`milepost runs ...` as a process: (exit code, what it printed)."""
        return await milepost("runs", *arguments, "--store", self.server.store, cwd=self.folder)


def whole(response: httpx2.Response) -> dict[str, Any]:
    """The message of a response, whether it came as JSON or at the end of a stream."""
    text = response.text
    if response.headers["content-type"] == "text/event-stream":
        text = text.rstrip().splitlines()[-1].removeprefix("data: ")
    message: dict[str, Any] = json.loads(text)
    return message


def retry(message: dict[str, Any], result: Mapping[str, Any], **content: Any) -> dict[str, Any]:
    """The same call again, with the answer to its one question."""
    key = next(iter(result.get("inputRequests", {"q1": 0})))
    given = {"inputResponses": {key: {"action": "accept", "content": content}}} if content else {}
    return {**message, "params": {**message["params"], "requestState": result["requestState"], **given}}


def buying(item: str) -> dict[str, Any]:
    return call("buy", {"item": item})


async def milepost(*arguments: str, cwd: Path) -> tuple[int, str]:
    """The command as a process of its own, until it ends: (exit code, what it printed)."""
    command = [Path(sys.executable).with_name("milepost"), *arguments]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, env={**os.environ, "LEDGER": str(cwd / "ledger")},
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(LIMIT):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, said.decode()


@asynccontextmanager
async def open_shop(folder: Path, **settings: str) -> AsyncIterator[Shop]:
    """The shop, served by a process of its own. `settings`: MILEPOST_* variables."""
    (folder / "shop.py").write_text(SHOP)
    env = {"LEDGER": str(folder / "ledger"), **settings}
    async with (
        served(f"{folder / 'shop.py'}:mcp", folder, cwd=folder, env=env) as server,
        httpx2.AsyncClient(timeout=LIMIT) as http,
    ):
        yield Shop(folder, server, Raw(http, server.url))
