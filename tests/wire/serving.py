"""Milepost on a real port, inside the test's own loop, and the two ways to talk to it: SDK client and raw HTTP."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import uvicorn

from milepost.app import Milepost

LIMIT = 20.0
"""Seconds that any wait of these tests may take."""


@dataclass
class Server:
    url: str
    app: Milepost

    @property
    def endpoint(self) -> Any:
        return self.app.parts.endpoint

    @property
    def runs(self) -> Any:
        return self.app.parts.runs


@asynccontextmanager
async def serving(server: object, store: Path, *, wrap: Any = None, **flags: Any) -> AsyncIterator[Server]:
    """Serve on a free port. `wrap`: an ASGI layer around the app (a test's own login, say)."""
    app = Milepost(server, store=f"sqlite:///{store}", **flags)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        wrap(app) if wrap else app, log_level="critical", lifespan="off", timeout_graceful_shutdown=2, http="httptools"
    )
    web = uvicorn.Server(config)
    web.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    async with app.running():
        task = asyncio.create_task(web.serve(sockets=[listening]))
        while not web.started:
            await asyncio.sleep(0.005)
        try:
            yield Server(f"http://127.0.0.1:{listening.getsockname()[1]}/mcp", app)
        finally:
            await app.drain()
            web.should_exit = True
            await task
            listening.close()


BOTH = "application/json, text/event-stream"
INIT = {
    "protocolVersion": "2025-11-25",
    "capabilities": {"elicitation": {}},
    "clientInfo": {"name": "raw", "version": "1"},
}


def request(method: str, params: Any = None, *, id: Any = 1) -> dict[str, Any]:  # noqa: A002
    return {"jsonrpc": "2.0", "id": id, "method": method, **({} if params is None else {"params": params})}


def call(tool: str, arguments: Mapping[str, Any] | None = None, *, id: Any = 1, token: Any = None) -> dict[str, Any]:  # noqa: A002
    params: dict[str, Any] = {"name": tool, "arguments": dict(arguments or {})}
    if token is not None:
        params["_meta"] = {"progressToken": token}
    return request("tools/call", params, id=id)


@dataclass
class Sse:
    """One event of an event stream, as read."""

    id: str | None
    data: str
    retry: int | None

    @property
    def message(self) -> dict[str, Any]:
        decoded: dict[str, Any] = json.loads(self.data)
        return decoded


async def events(response: httpx2.Response) -> AsyncIterator[Sse]:
    """The events of an open response, comments left out."""
    lines: list[str] = []
    async for line in response.aiter_lines():
        if line:
            lines.append(line)
            continue
        if fields := [one.split(": ", 1) for one in lines if not one.startswith(":")]:
            named = {name.rstrip(":"): (rest[0] if rest else "") for name, *rest in fields}
            yield Sse(named.get("id"), named.get("data", ""), int(named["retry"]) if "retry" in named else None)
        lines = []


def accept(asked: dict[str, Any], **content: Any) -> dict[str, Any]:
    """The answer that accepts a question, with this content."""
    return {"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "accept", "content": content}}


async def until(stream: AsyncIterator[Sse], *, method: str | None = None) -> Sse:
    """The next message with this method; without one, the next response."""
    async for event in stream:
        if event.data and (event.message.get("method") == method):
            return event
    raise AssertionError("the stream ended")


@dataclass
class Raw:
    """A client of bare HTTP: says exactly what the test says."""

    http: httpx2.AsyncClient
    url: str
    session: str | None = None
    version: str = "2025-11-25"
    headers: dict[str, str] = field(default_factory=dict)

    def _headers(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        named = {"mcp-session-id": self.session} if self.session else {}
        versioned = {"mcp-protocol-version": self.version} if self.session else {}
        return {
            "accept": BOTH,
            "content-type": "application/json",
            **named,
            **versioned,
            **self.headers,
            **(more or {}),
        }

    async def open(self, params: Mapping[str, Any] = INIT) -> Raw:
        response = await self.http.post(self.url, json=request("initialize", params, id=0), headers=self._headers())
        assert response.status_code == 200, response.text
        self.session = response.headers["mcp-session-id"]
        self.version = response.json()["result"]["protocolVersion"]
        assert (await self.post({"jsonrpc": "2.0", "method": "notifications/initialized"})).status_code == 202
        return self

    async def post(self, body: Any, **headers: str) -> httpx2.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.http.post(self.url, content=content, headers=self._headers(headers))

    @asynccontextmanager
    async def stream(self, body: Any, **headers: str) -> AsyncIterator[httpx2.Response]:
        async with self.http.stream(
            "POST", self.url, content=json.dumps(body).encode(), headers=self._headers(headers)
        ) as response:
            yield response

    @asynccontextmanager
    async def listen(self, last_event_id: str | None = None) -> AsyncIterator[httpx2.Response]:
        more = {"last-event-id": last_event_id} if last_event_id else {}
        async with self.http.stream("GET", self.url, headers=self._headers(more)) as response:
            yield response

    async def modern(self, body: dict[str, Any], capabilities: Mapping[str, Any] | None = None) -> httpx2.Response:
        """One request of 2026-07-28, with the headers that it needs."""
        body, headers = enveloped(body, capabilities)
        return await self.http.post(self.url, json=body, headers={**headers, **self.headers})


def enveloped(
    body: dict[str, Any], capabilities: Mapping[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, str]]:
    """A request in its 2026-07-28 envelope, and its headers."""
    params = dict(body.get("params") or {})
    params["_meta"] = {
        **params.get("_meta", {}),
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": dict(capabilities or {}),
        "io.modelcontextprotocol/clientInfo": {"name": "raw", "version": "1"},
    }
    headers = {
        "accept": BOTH,
        "content-type": "application/json",
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": body["method"],
    }
    if "name" in params:
        headers["mcp-name"] = params["name"]
    return {**body, "params": params}, headers
