"""The travel assistant through the proxy, its server killed twice: each era on either side, a pipe and HTTP."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, MCPError, StdioServerParameters
from mcp.types import CallToolResult, CreateMessageResult, ElicitResult, TextContent

from connect.running import HOSTS, LIMIT, MILEPOST, REMOTES, WIRES, piped, raw, through
from processes import ROOT, ServerProcess, served

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning"),
]

TARGET = f"{ROOT / 'examples' / 'travel_ops' / 'server.py'}:mcp"
ANSWERS = {"leg": "1", "day": "2027-03-23", "flight": "MP103", "go_ahead": True}
EFFECTS = [("hold_seat", 1), ("rebook", 1), ("send_letter", 1)]


class Traveller:
    """Answers each form by its fields, and does something before that."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.before: dict[str, Callable[[], Awaitable[None]]] = {}

    async def __call__(self, context: Any, params: Any) -> ElicitResult:
        self.asked.append(params.message)
        fields = list(params.requested_schema["properties"])
        for field in fields:
            if field in self.before:
                await self.before[field]()
        return ElicitResult(action="accept", content={field: ANSWERS[field] for field in fields})


async def model(context: Any, params: Any) -> CreateMessageResult:
    return CreateMessageResult(role="assistant", content=TextContent(type="text", text="A warm letter."), model="m")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "travel.db"


@pytest.fixture
async def remote(tmp_path: Path, data: Path) -> AsyncIterator[ServerProcess]:
    async with served(TARGET, tmp_path, env={"TRAVEL_OPS_DB": str(data), "MILEPOST_HTTP_RETRY": "0.2"}) as server:
        yield server


def effects(data: Path) -> list[tuple[str, int]]:
    with closing(sqlite3.connect(data)) as db:
        return db.execute("SELECT kind, calls FROM effects ORDER BY n").fetchall()


async def change(client: Client) -> CallToolResult:
    return await client.call_tool("change_itinerary", {"pnr": "QK7P2M"})


@pytest.mark.parametrize("era", REMOTES)
@pytest.mark.parametrize("mode", HOSTS)
@pytest.mark.parametrize("wire", WIRES)
async def test_a_conversation_survives_two_kills_of_its_server(
    wire: str, mode: str, era: str, remote: ServerProcess, data: Path, tmp_path: Path
) -> None:
    person = Traveller()
    person.before = {"day": remote.restart, "go_ahead": remote.restart}
    options: dict[str, Any] = {
        "mode": "legacy" if mode == "legacy" else "auto", "elicitation_callback": person, "sampling_callback": model,
    }  # fmt: skip
    with anyio.fail_after(LIMIT * 2):
        async with through(wire, tmp_path, remote.url, "--era", era, **options) as client:
            result = await change(client)
    assert result.structured_content is not None, result
    assert result.structured_content["status"] == "changed"
    assert result.structured_content["letter"] == "A warm letter."
    assert len(person.asked) == len(set(person.asked)) == 4
    assert effects(data) == EFFECTS


CALL = {"name": "change_itinerary", "arguments": {"pnr": "QK7P2M"}}


@pytest.mark.parametrize("era", REMOTES)
@pytest.mark.parametrize("mode", HOSTS)
async def test_a_proxy_that_is_killed_goes_on_with_the_call_that_its_host_makes_again(
    mode: str, era: str, remote: ServerProcess, data: Path, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"mode": "legacy" if mode == "legacy" else "auto", "sampling_callback": model}
    first, second = Traveller(), Traveller()
    pid = tmp_path / "pid"

    async def kill_the_proxy() -> None:
        os.kill(int(pid.read_text()), signal.SIGKILL)  # before its host has said a word: this answer is lost

    first.before = {"flight": kill_the_proxy}
    with anyio.fail_after(LIMIT * 2):
        async with Client(noted(tmp_path, remote.url, era), elicitation_callback=first, **options) as client:
            with pytest.raises(MCPError):
                await change(client)
        async with through(
            "stdio", tmp_path, remote.url, "--era", era, elicitation_callback=second, **options
        ) as client:
            result = await change(client)
    assert result.structured_content is not None, result
    assert result.structured_content["status"] == "changed"
    assert len(first.asked) == 3
    assert len(second.asked) == 2, "what was answered is not asked again"
    assert effects(data) == EFFECTS


def noted(folder: Path, url: str, era: str) -> StdioServerParameters:
    """The proxy, whose process id is noted in a file."""
    proxy = piped(folder, url, "--era", era)
    line = f"echo $$ > {folder / 'pid'}; exec " + " ".join([proxy.command, *proxy.args])
    return proxy.model_copy(update={"command": "/bin/sh", "args": ["-c", line]})


@pytest.mark.parametrize("era", REMOTES)
async def test_a_host_that_leaves_in_the_middle_finds_its_call_when_it_comes_back(
    era: str, remote: ServerProcess, data: Path, tmp_path: Path
) -> None:
    person = Traveller()
    with anyio.fail_after(LIMIT * 2):
        async with raw(piped(tmp_path, remote.url, "--era", era)) as host:
            await host.handshake({"elicitation": {}, "sampling": {}})
            await host.say({"id": 2, "method": "tools/call", "params": CALL})
            while "flight" not in (fields := (await host.asked())["params"]["requestedSchema"]["properties"]):
                await host.answer({"action": "accept", "content": {field: ANSWERS[field] for field in fields}})
            await host.leave()
        options: dict[str, Any] = {"mode": "legacy", "elicitation_callback": person, "sampling_callback": model}
        async with through("stdio", tmp_path, remote.url, "--era", era, **options) as client:
            result = await change(client)
    assert result.structured_content is not None, result
    assert result.structured_content["status"] == "changed"
    assert len(person.asked) == 2
    assert effects(data) == EFFECTS


async def test_a_question_that_the_remote_takes_back_is_taken_back_from_the_host(
    remote: ServerProcess, data: Path, tmp_path: Path
) -> None:
    with anyio.fail_after(LIMIT * 2):
        async with raw(piped(tmp_path, remote.url, "--era", "handshake")) as host:
            await host.handshake({"elicitation": {}, "sampling": {}})
            await host.say({"id": 2, "method": "tools/call", "params": CALL})
            first = await host.asked()
            run_id = str(first["params"]["_meta"]["milepost/run_id"])
            await answered_elsewhere(remote, "leg=1")
            while (said := await host.hear()).get("method") != "notifications/cancelled":
                assert "id" not in said, "not answered yet, and not asked again"
            assert said["params"]["requestId"] == first["id"]
            second = await host.asked()
    assert run_id.startswith("run-")
    assert "day" in second["params"]["requestedSchema"]["properties"]


async def answered_elsewhere(remote: ServerProcess, answer: str) -> None:
    """By an operator, on the remote's own store."""
    listed = await output(MILEPOST, "runs", "list", "--json", "--store", remote.store)
    (run,) = json.loads(listed)
    await output(MILEPOST, "runs", "answer", run["run_id"], answer, "--store", remote.store)


async def output(*command: str) -> bytes:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0, out
    return out
