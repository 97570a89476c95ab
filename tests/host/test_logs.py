"""Logs: one form for all loggers, what is known of the run on each line, and no secret on any."""

from __future__ import annotations

import io
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
import structlog
from fastmcp import FastMCP
from mcp import Client
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from pydantic import BaseModel, ValidationError

from milepost import logs
from milepost.settings import LogSettings
from wire.person import Person
from wire.sample import Day, Effects, a_server
from wire.serving import serving


@pytest.fixture
def stream() -> io.StringIO:
    """Configured to write JSON into a string (conftest.py puts the process's logging back)."""
    out = io.StringIO()
    logs.configure(LogSettings("json", "debug"), stream=out)
    return out


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_every_line_carries_what_is_known_of_its_run(stream: io.StringIO) -> None:
    with structlog.contextvars.bound_contextvars(run_id="run-1", trace_id="t", tool="plan", stage="s", epoch=2):
        structlog.get_logger("milepost.engine").info("ours", attempt="a-1")
        logging.getLogger("mcp.server").warning("theirs %s", 1)
    ours, theirs = lines(stream)
    assert ours["event"] == "ours"
    assert theirs["event"] == "theirs 1"
    for line in (ours, theirs):
        assert (line["run_id"], line["trace_id"], line["tool"], line["epoch"]) == ("run-1", "t", "plan", 2)
        assert line["level"] in {"info", "warning"}
        assert "timestamp" in line


async def test_the_sdks_own_raw_session_ids_never_reach_the_log(stream: io.StringIO) -> None:
    mcp = MCPServer("travel")
    app = mcp.streamable_http_app(json_response=True)
    transport = httpx2.ASGITransport(app=app)
    seen: list[str] = []

    async def note(response: httpx2.Response) -> None:
        seen.append(response.headers.get("mcp-session-id", ""))

    async with app.router.lifespan_context(app):
        http = httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:1", event_hooks={"response": [note]})
        async with http:
            with anyio.fail_after(20):
                body = {
                    "jsonrpc": "2.0",
                    "id": 1,
                    "method": "initialize",
                    "params": {
                        "protocolVersion": "2025-11-25",
                        "capabilities": {},
                        "clientInfo": {"name": "c", "version": "1"},
                    },
                }
                accept = {"accept": "application/json, text/event-stream"}
                await http.post("/mcp", json=body, headers=accept)
    session = seen[0]
    assert session
    text = stream.getvalue()
    assert "session" in text.lower(), "the SDK no longer logs sessions: this test shows nothing"
    assert session not in text
    assert logs.process_reference(session) in text


class Answer(BaseModel):
    day: int


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("Authorization: Bearer abc.def-ghi", "abc.def-ghi"),
        ("got eyJhbGciOi.eyJzdWIi.c2ln from client", "eyJzdWIi"),
        ("GET /runs/1?sig=topsecret HTTP/1.1", "topsecret"),
        ("see https://a.example/x?token=topsecret", "topsecret"),
        ("{'requestState': 'v1.topsecret'}", "v1.topsecret"),
        ('"access_token": "topsecret"', "topsecret"),
        ("Rejected request with unknown or expired session ID: 0123456789abcdef0123456789abcdef", "0123456789abcdef"),
        ("Mcp-Session-Id: abcdefghij_-klmnopqrst", "abcdefghij_-klmnopqrst"),
    ],
)
def test_secrets_in_a_text_are_scrubbed(stream: io.StringIO, text: str, secret: str) -> None:
    logging.getLogger("anyone").info(text)
    assert secret not in stream.getvalue()
    assert lines(stream)[0]["event"]


def test_secrets_in_fields_are_scrubbed_at_any_depth(stream: io.StringIO) -> None:
    log = structlog.get_logger("x")
    log.info(
        "m",
        session_id="raw-session",
        answer={"day": "topsecret"},
        data={"token": "topsecret", "n": [1, "Bearer topsecret"]},
    )
    log.info("object", thing=object(), none=None, ok=True, session="0a1b")
    first, second = lines(stream)
    assert "topsecret" not in stream.getvalue()
    assert first["session_id"] == logs.process_reference("raw-session")
    assert first["data"]["n"][0] == 1
    assert second["session"] == "0a1b"
    assert second["none"] is None
    assert second["ok"] is True


def test_a_rejected_answer_is_not_quoted_by_the_traceback(stream: io.StringIO) -> None:
    private = "my private " + "answer"  # the traceback quotes source lines
    try:
        Answer.model_validate({"day": private})
    except ValidationError as error:
        logging.getLogger("mcp.server").exception("failed: %s", error)
    assert private not in stream.getvalue()
    assert "ValidationError" in stream.getvalue()


def test_whole_messages_of_the_sdks_are_not_let_through_even_at_debug(stream: io.StringIO) -> None:
    logging.getLogger("mcp.server.lowlevel").debug("Received %s", {"content": {"day": "private"}})
    logging.getLogger("fastmcp.server").debug("call_tool with %s", {"a": "private"})
    structlog.get_logger("milepost.engine").debug("ours")
    assert [line["event"] for line in lines(stream)] == ["ours"]


def test_fastmcp_and_uvicorn_speak_through_the_same_handler(stream: io.StringIO) -> None:
    FastMCP("x")
    logs.configure(LogSettings("json", "info"), stream=stream)
    logging.getLogger("uvicorn.error").setLevel(logging.NOTSET)  # a server of another test may have set it
    logging.getLogger("fastmcp").warning("one")
    logging.getLogger("uvicorn.error").info("two")
    logging.getLogger("uvicorn.access").info("GET /")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("three", UserWarning, stacklevel=1)
    one, two, three = (line["event"] for line in lines(stream))
    assert (one, two) == ("one", "two")
    assert "UserWarning: three" in three


def test_the_stores_key_is_used_once_it_is_known(stream: io.StringIO) -> None:
    scrubber = logs.configure(LogSettings("json"), stream=stream)
    scrubber.reference = lambda _id: "by-store"
    structlog.get_logger("x").info("m", session_id="raw")
    assert lines(stream)[0]["session_id"] == "by-store"


def test_a_console_gets_lines_for_people(stream: io.StringIO) -> None:
    logs.configure(LogSettings("console"), stream=stream)
    structlog.get_logger("x").info("hello", run_id="run-1")
    assert "hello" in stream.getvalue()
    assert "run_id=run-1" in stream.getvalue()


async def test_the_lines_of_a_session_carry_its_keyed_hash_and_their_run(stream: io.StringIO, tmp_path: Path) -> None:
    """From the first call to the result, in a workflow and in a tool that waits in memory."""
    mcp = a_server(Effects())

    @mcp.tool()
    async def talks(ctx: Context[Any]) -> str:
        await ctx.elicit("Which day?", Day)
        logging.getLogger("author").warning("said by the author")
        return "done"

    async with (
        serving(mcp, tmp_path / "m.db") as server,
        Client(server.url, mode="legacy", elicitation_callback=Person()) as client,
    ):
        with anyio.fail_after(20):
            await client.call_tool("trip", {"name": "Ann"})
            await client.call_tool("talks", {})
            (live,) = server.endpoint.handshake.sessions._warm.values()
    of_runs = [line for line in lines(stream) if "run_id" in line]
    assert {line["event"] for line in of_runs} >= {"run began", "run ended", "said by the author"}
    assert {line.get("session") for line in of_runs} == {live.reference}
    assert all(line.keys() >= {"trace_id", "tool", "attempt", "epoch"} for line in of_runs)
    assert live.row.id not in stream.getvalue()
    assert "4A" not in stream.getvalue(), "an answer"


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_the_lines_of_a_stateless_call_name_its_tool_and_its_trace(
    stream: io.StringIO, tmp_path: Path, mode: Any
) -> None:
    mcp = MCPServer("stateless")

    @mcp.tool()
    async def look(n: int) -> int:
        logging.getLogger("author").warning("said by the author")
        return n

    async with serving(mcp, tmp_path / "m.db") as server, Client(server.url, mode=mode) as client:
        with anyio.fail_after(20):
            await client.call_tool("look", {"n": 1})
            await client.call_tool("look", {"n": 2})
    first, second = (line for line in lines(stream) if line["event"] == "said by the author")
    assert first["tool"] == second["tool"] == "look"
    assert len(first["trace_id"]) == 32
    assert first["trace_id"] != second["trace_id"]
