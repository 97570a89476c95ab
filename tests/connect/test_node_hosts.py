"""Hosts that run on Node: both official TypeScript clients, and the Inspector's CLI, which can't answer questions.

They are installed from the npm registry on first use, pinned by package-lock.json, with a Node that is new enough for
them. Without npm these tests fail, and say so: a host that nobody tried is not a host that works.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import StdioServerParameters

from connect.running import HERE, LIMIT, WIRES, listening, piped
from connect.test_travel import ANSWERS, EFFECTS, TARGET, effects
from processes import ServerProcess, served

pytestmark = pytest.mark.timeout(240)

NODE = HERE / "node"
BINARY = NODE / "node_modules" / "node" / "bin" / "node"
INSPECTOR = NODE / "node_modules" / ".bin" / "mcp-inspector"
OPPOSITE = {"v1": "modern", "v2-legacy": "modern", "v2-modern": "handshake"}


@pytest.fixture(scope="session", autouse=True)
def node_modules() -> None:
    """All of them, as the lock file names them. One worker of pytest-xdist installs, the others wait for it."""
    with (NODE / "package-lock.json").open() as locked:
        fcntl.flock(locked, fcntl.LOCK_EX)
        install()


def install() -> None:
    stamp = NODE / "node_modules" / ".milepost-lock"
    wanted = hashlib.sha256((NODE / "package-lock.json").read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return
    npm = shutil.which("npm")
    if npm is None:
        pytest.fail("npm was not found: these tests run hosts of the proxy on Node. Install Node 20 or newer.")
    command = [npm, "ci", "--no-audit", "--no-fund", "--loglevel=error"]
    subprocess.run(command, cwd=NODE, check=True, timeout=200, stdin=subprocess.DEVNULL)
    stamp.write_text(wanted)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "travel.db"


@pytest.fixture
async def remote(tmp_path: Path, data: Path) -> AsyncIterator[ServerProcess]:
    async with served(TARGET, tmp_path, env={"TRAVEL_OPS_DB": str(data), "MILEPOST_HTTP_RETRY": "0.2"}) as server:
        yield server


# --- the TypeScript clients --------------------------------------------------------------------------


def place_of(proxy: StdioServerParameters) -> dict[str, Any]:
    return {"command": proxy.command, "args": proxy.args, "env": proxy.env, "cwd": str(proxy.cwd)}


@asynccontextmanager
async def talking(kind: str, place: dict[str, Any]) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        BINARY, "host.mjs", kind, json.dumps(place), "QK7P2M", cwd=NODE,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def heard(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), LIMIT)
    assert line, "the host ended without a result"
    said: dict[str, Any] = json.loads(line)
    return said


@pytest.mark.parametrize("wire", WIRES)
@pytest.mark.parametrize("kind", OPPOSITE)
async def test_a_typescript_host_changes_a_trip_across_eras_and_two_kills(
    kind: str, wire: str, remote: ServerProcess, data: Path, tmp_path: Path
) -> None:
    flags, asked = ("--era", OPPOSITE[kind]), []
    async with AsyncExitStack() as stack:
        if wire == "http":
            place = {"url": (await stack.enter_async_context(listening(tmp_path, remote.url, *flags))).url}
        else:
            place = place_of(piped(tmp_path, remote.url, *flags))
        host = await stack.enter_async_context(talking(kind, place))
        assert host.stdin is not None
        while "question" in (said := await heard(host)):
            asked.append(said["question"])
            if {"day", "go_ahead"} & set(said["fields"]):
                await remote.restart()
            host.stdin.write(json.dumps({field: ANSWERS[field] for field in said["fields"]}).encode() + b"\n")
    assert "result" in said, said
    assert said["result"]["structuredContent"]["status"] == "changed"
    assert said["result"]["structuredContent"]["letter"] == f"A letter by {kind}."
    assert len(asked) == len(set(asked)) == 4
    assert effects(data) == EFFECTS


# --- the Inspector -----------------------------------------------------------------------------------


async def inspect(folder: Path, place: list[str], *flags: str) -> dict[str, Any]:
    """What `mcp-inspector --cli` prints."""
    env = {**os.environ, "HOME": str(folder), "XDG_STATE_HOME": str(folder / "state")}
    env["PATH"] = f"{BINARY.parent}:{env['PATH']}"
    process = await asyncio.create_subprocess_exec(
        INSPECTOR, "--cli", "--format", "json", "--quiet", "--connect-timeout", "60000", *flags, *place, cwd=folder,
        env=env, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), LIMIT)
    assert process.returncode == 0, (out, err)
    printed: dict[str, Any] = json.loads(out)
    return printed


@pytest.mark.parametrize(
    ("wire", "host_era", "era"),
    [
        ("stdio", "legacy", "modern"),
        ("stdio", "modern", "handshake"),
        ("http", "legacy", "handshake"),
        ("http", "modern", "modern"),
    ],
)
async def test_the_inspector_changes_a_trip_by_hand_while_the_server_is_killed_twice(
    wire: str, host_era: str, era: str, remote: ServerProcess, data: Path, tmp_path: Path
) -> None:
    async with AsyncExitStack() as stack:
        if wire == "http":
            proxy = await stack.enter_async_context(listening(tmp_path, remote.url, "--era", era))
            place = ["--transport", "http", "--server-url", proxy.url]
        else:
            started = piped(tmp_path, remote.url, "--era", era)
            place = ["--", started.command, *started.args]

        async def call(tool: str, **arguments: Any) -> dict[str, Any]:
            flags = ("--method", "tools/call", "--tool-name", tool, "--tool-args-json", json.dumps(arguments))
            return await inspect(tmp_path, place, "--protocol-era", host_era, *flags)

        listed = await inspect(tmp_path, place, "--protocol-era", host_era, "--method", "tools/list")
        found = await call("find_itinerary", query="QK7P2M")
        said = await call("change_itinerary", pnr="QK7P2M")
        fields: list[str] = []
        while (waits := said["result"]["structuredContent"])["status"] == "input_required":
            question = waits["questions"][0]
            (field,) = question["schema"]["properties"]
            if field in ("day", "go_ahead"):
                await remote.restart()
            answers = {question["key"]: {field: ANSWERS[field]}}
            said = await call("continue_run", run_id=waits["run_id"], answers=answers)
            fields.append(field)
    names = [tool["name"] for tool in listed["result"]["tools"]]
    assert {"find_itinerary", "change_itinerary"} <= set(names)
    assert names.count("continue_run") == 1
    assert found["result"]["structuredContent"]["result"][0]["pnr"] == "QK7P2M"
    assert fields == ["leg", "day", "flight", "go_ahead"]
    assert said["result"]["structuredContent"]["status"] == "changed"
    assert effects(data) == EFFECTS
