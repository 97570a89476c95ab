"""Both eras over a pipe, with the official SDK's client; and a process that is killed in the middle."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client, StdioServerParameters

from wire.person import Person
from wire.serving import INIT, LIMIT, call, request

pytestmark = pytest.mark.anyio
HERE = Path(__file__).parent


def child(tmp_path: Path) -> StdioServerParameters:
    arguments = [str(HERE / "stdio_server.py"), str(tmp_path / "m.db"), str(tmp_path / "ledger")]
    return StdioServerParameters(command=sys.executable, args=arguments, env=env())


def env() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(HERE.parent)}


def ledger(tmp_path: Path) -> list[str]:
    path = tmp_path / "ledger"
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_workflow_over_a_pipe(tmp_path: Path, mode: Any) -> None:
    person = Person()
    with anyio.fail_after(LIMIT):
        async with Client(child(tmp_path), mode=mode, elicitation_callback=person) as client:
            assert (await client.call_tool("add", {"a": 2, "b": 3})).structured_content == {"result": 5}
            result = await client.call_tool("trip", {"name": "Ann"})
    assert result.content[0].text == "Ann: B-34A"
    assert person.asked == ["Which day, Ann?", "Which seat?"]
    assert ledger(tmp_path) == ["add", "book 3 4A"]


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_hot_tool_over_a_pipe(tmp_path: Path, mode: Any) -> None:
    with anyio.fail_after(LIMIT):
        async with Client(child(tmp_path), mode=mode, elicitation_callback=Person()) as client:
            result = await client.call_tool("hot", {})
    assert result.content[0].text == "hot accept 3"


class Lines:
    """A child process spoken to line by line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, tmp_path: Path) -> Lines:
        parameters = child(tmp_path)
        return cls(
            await asyncio.create_subprocess_exec(
                parameters.command, *parameters.args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env()
            )
        )

    async def say(self, message: Any) -> None:
        assert self.process.stdin is not None
        data = message if isinstance(message, bytes) else json.dumps(message).encode()
        self.process.stdin.write(data + b"\n")
        await self.process.stdin.drain()

    async def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        heard: dict[str, Any] = json.loads(await self.process.stdout.readline())
        return heard

    async def open(self) -> None:
        await self.say(request("initialize", INIT, id=0))
        assert (await self.hear())["id"] == 0
        await self.say({"jsonrpc": "2.0", "method": "notifications/initialized"})

    async def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    async def close(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return await self.process.wait()


async def test_after_a_kill_the_same_call_goes_on_where_it_stopped(tmp_path: Path) -> None:
    with anyio.fail_after(LIMIT):
        first = await Lines.start(tmp_path)
        await first.open()
        await first.say(call("trip", {"name": "Ann"}))
        asked = await first.hear()
        assert asked["method"] == "elicitation/create"
        await first.say({"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "accept", "content": {"day": 9}}})
        assert (await first.hear())["params"]["message"] == "Which seat?"
        await first.kill()

        second = await Lines.start(tmp_path)
        await second.open()
        await second.say(call("trip", {"name": "Ann"}, id=77))
        asked = await second.hear()
        assert asked["params"]["message"] == "Which seat?"
        await second.say(
            {"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "accept", "content": {"seat": "2B"}}}
        )
        result = await second.hear()
        assert await second.close() == 0
    assert result["id"] == 77
    assert result["result"]["content"][0]["text"] == "Ann: B-92B"
    assert result["result"]["_meta"]["milepost/attached"] is True
    assert ledger(tmp_path) == ["book 9 2B"]


async def test_what_is_no_message_gets_an_error_and_ends_nothing(tmp_path: Path) -> None:
    with anyio.fail_after(LIMIT):
        pipe = await Lines.start(tmp_path)
        await pipe.say(b"{nonsense")
        assert (await pipe.hear())["error"]["code"] == -32700
        await pipe.say([request("ping")])
        assert (await pipe.hear())["error"]["code"] == -32600
        await pipe.say(b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":"' + b"a" * 5_000_000 + b'"}}')
        assert "too large" in (await pipe.hear())["error"]["message"]
        await pipe.open()
        await pipe.say(request("ping", id=5))
        assert await pipe.hear() == {"jsonrpc": "2.0", "id": 5, "result": {}}
        assert await pipe.close() == 0
