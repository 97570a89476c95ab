"""The composition root: started and stopped, by its own server, by any ASGI server, and in error."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
import uvicorn
from mcp import Client
from mcp.server import MCPServer
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp_types import ElicitResult
from pydantic import AnyHttpUrl
from starlette.requests import Request
from starlette.responses import JSONResponse

from host.travel_src import FAST, FAST_TOML, TRAVEL
from milepost import workflow
from milepost.app import Milepost
from milepost.core.errors import ConfigurationError, StoreUnavailable
from milepost.core.outside import Find
from milepost.core.states import RunState
from milepost.logs import Scrubber
from milepost.serving import listen, serve_http, url_of
from milepost.settings import HttpSettings

pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")


@asynccontextmanager
async def served(app: Milepost) -> AsyncIterator[str]:
    """Our own server around the app, stopped by SIGTERM; gives its URL."""
    ready: asyncio.Queue[str] = asyncio.Queue()
    task = asyncio.create_task(serve_http(app, ready.put_nowait))
    get = asyncio.create_task(ready.get())
    with anyio.fail_after(20):
        await asyncio.wait({task, get}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            get.cancel()
            await task
        yield get.result()
        os.kill(os.getpid(), signal.SIGTERM)
        await task


@asynccontextmanager
async def visiting(app: Milepost) -> AsyncIterator[httpx2.AsyncClient]:
    """The running app without a socket."""
    async with (
        app.running(),
        httpx2.AsyncClient(transport=httpx2.ASGITransport(app=app), base_url="http://127.0.0.1:1") as client,
    ):
        yield client


def an_app(server: object, **flags: Any) -> Milepost:
    return Milepost(server, **{"store": "sqlite:///app.db", "http": {"port": 0}, **flags})


async def answers(_context: Any, params: Any) -> ElicitResult:
    value = {"When?": {"value": "Monday"}, "Sure?": {"value": True}}
    return ElicitResult(action="accept", content=value.get(params.message, {"day": "Monday", "seats": 2}))


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
async def test_a_workflow_is_served_to_both_eras_and_sigterm_stops_the_server(folder: Path, mode: str) -> None:
    (folder / "travel_app.py").write_text(TRAVEL)
    app = an_app("travel_app:mcp")
    async with served(app) as url, Client(url, mode=mode, elicitation_callback=answers) as client:
        assert (await client.call_tool("echo", {"text": "hi"})).content[0].text == "hi"
        result = await client.call_tool("plan", {"pnr": "X1"})
        assert result.content[0].text == "booked 2 on Monday"
    assert app.trouble() == "not started"


@pytest.mark.parametrize("mode", ["2026-07-28", "legacy"])
async def test_an_unchanged_fastmcp_tool_becomes_durable_by_milepost_toml_alone(folder: Path, mode: str) -> None:
    (folder / "fast_srv.py").write_text(FAST)
    (folder / "milepost.toml").write_text(FAST_TOML)
    app = an_app("fast_srv:mcp")
    async with served(app) as url, Client(url, mode=mode, elicitation_callback=answers) as client:
        result = await client.call_tool("trip", {})
        assert result.content[0].text == "held Monday True"
        (run,) = await app.parts.runs.find(Find())
        loaded = await app.parts.runs.load(run.id)
    assert run.state is RunState.COMPLETED
    assert loaded is not None
    assert [entry.name for entry in loaded.entries if entry.kind == "done"] == ["hold_seat"]


async def test_health_readiness_and_nothing_elsewhere(folder: Path) -> None:
    app = an_app(MCPServer("plain"))
    async with visiting(app) as client:
        assert (await client.get("/healthz")).json() == {"status": "ok"}
        assert (await client.get("/readyz")).json() == {"status": "ready"}
        nothing = await client.get("/elsewhere")
        assert nothing.status_code == 404
        assert "/mcp" in nothing.json()["error"]
        await app.drain()
        draining = await client.get("/readyz")
        assert (draining.status_code, draining.json()) == (503, {"status": "draining"})
        assert draining.headers["retry-after"] == "5"
        assert (await client.get("/healthz")).status_code == 200


async def test_before_its_start_the_app_is_not_ready_and_serves_nothing(folder: Path) -> None:
    app = an_app(MCPServer("plain"))
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:1") as client:
        assert (await client.get("/readyz")).status_code == 503
        assert (await client.post("/mcp", json={})).status_code == 503
    with pytest.raises(RuntimeError, match="isn't running"):
        _ = app.parts
    await app.drain()


async def test_a_store_that_can_not_write_makes_the_replica_not_ready(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = an_app(MCPServer("plain"))
    async with visiting(app) as client:
        monkeypatch.setattr(app.parts.store, "healthy", lambda: "the disk is full")
        answer = await client.get("/readyz")
        assert (answer.status_code, answer.json()) == (503, {"status": "the disk is full"})


async def test_the_authors_own_routes_are_served_beside_the_endpoint(folder: Path) -> None:
    mcp = MCPServer("routes")

    @mcp.custom_route("/hello", methods=["GET"])
    async def hello(_request: Request) -> JSONResponse:
        return JSONResponse({"hello": "you"})

    async with visiting(an_app(mcp)) as client:
        assert (await client.get("/hello")).json() == {"hello": "you"}
        assert (await client.get("/mcp")).status_code != 404
        assert (await client.get("/healthz")).status_code == 200


class Verifier:
    async def verify_token(self, token: str) -> AccessToken | None:
        return AccessToken(token=token, client_id="app", scopes=["use"], subject="ann") if token == "good" else None


async def test_the_servers_own_token_checks_guard_the_endpoint(folder: Path) -> None:
    settings = AuthSettings(
        issuer_url=AnyHttpUrl("https://issuer.example"),
        resource_server_url=AnyHttpUrl("https://me.example/mcp"),
        required_scopes=["use"],
        validate_token_resource=False,
    )
    mcp = MCPServer("guarded", auth=settings, token_verifier=Verifier())
    ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
    accept = {"accept": "application/json, text/event-stream"}
    async with visiting(an_app(mcp)) as client:
        refused = await client.post("/mcp", json=ping, headers=accept)
        assert refused.status_code == 401
        assert "resource_metadata" in refused.headers["www-authenticate"]
        assert (await client.get("/.well-known/oauth-protected-resource/mcp")).status_code == 200
        passed = await client.post("/mcp", json=ping, headers={**accept, "authorization": "Bearer good"})
        assert passed.status_code != 401
        assert (await client.get("/readyz")).status_code == 200


async def test_the_scrubber_gets_the_stores_key(folder: Path) -> None:
    scrubber = Scrubber()
    before = scrubber.reference
    app = Milepost(MCPServer("plain"), store="sqlite:///app.db", scrubber=scrubber)
    async with app.running():
        assert scrubber.reference is not before


async def test_any_asgi_server_can_serve_it_and_its_stop_begins_the_drain(folder: Path) -> None:
    app = an_app(MCPServer("plain"))
    sock = listen(HttpSettings(port=0))
    started = asyncio.Event()

    class Telling(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            started.set()

    server = Telling(uvicorn.Config(app, log_config=None, lifespan="on", ws="none"))
    before = signal.getsignal(signal.SIGTERM)
    caught: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: caught.append(number))
    try:
        task = asyncio.create_task(server.serve(sockets=[sock]))
        with anyio.fail_after(20):
            await started.wait()
            async with httpx2.AsyncClient() as client:
                assert (await client.get(url_of(sock, "/readyz"))).status_code == 200
            os.kill(os.getpid(), signal.SIGTERM)
            await task
    finally:
        signal.signal(signal.SIGTERM, before)
    assert caught == [signal.SIGTERM], "uvicorn raises its signal again at its end"
    assert app.trouble() == "not started"


async def lifespan(app: Milepost) -> list[dict[str, Any]]:
    said: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        said.append(message)

    inbox = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])

    async def receive() -> Any:
        return next(inbox)

    await app({"type": "lifespan"}, receive, send)  # type: ignore[arg-type]
    return said


async def test_the_lifespan_says_in_one_sentence_why_it_can_not_start(folder: Path) -> None:
    (folder / "a-file").write_text("")
    said = await lifespan(Milepost(MCPServer("x"), store="sqlite:///a-file/x.db"))
    assert said[0]["type"] == "lifespan.startup.failed"
    assert "a-file" in said[0]["message"]
    assert "\n" not in said[0]["message"]


async def test_the_lifespan_reports_a_crash_of_the_authors_own_lifespan(folder: Path) -> None:
    @asynccontextmanager
    async def life(_server: object) -> AsyncIterator[None]:
        raise ValueError("no database")
        yield

    with pytest.raises(ValueError, match="no database"):
        await lifespan(an_app(MCPServer("x", lifespan=life)))


async def test_the_lifespan_starts_and_stops(folder: Path) -> None:
    said = await lifespan(an_app(MCPServer("x")))
    assert [message["type"] for message in said] == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


async def test_tools_that_the_servers_lifespan_registers_are_hosted(folder: Path) -> None:
    async def late() -> str:
        return "here"

    @asynccontextmanager
    async def life(server: MCPServer) -> AsyncIterator[dict[str, int]]:
        server.add_tool(workflow(late))
        yield {"db": 1}

    app = an_app(MCPServer("x", lifespan=life))
    async with app.running() as parts:
        assert parts.hosted.tools["late"].lane == "stateful"
        assert parts.state == {"db": 1}


async def test_a_websocket_is_closed(folder: Path) -> None:
    said: list[Any] = []

    async def send(message: Any) -> None:
        said.append(message)

    await an_app(MCPServer("x"))({"type": "websocket"}, None, send)  # type: ignore[arg-type]
    assert said == [{"type": "websocket.close", "code": 1000}]


def test_steps_of_the_file_need_the_servers_name(folder: Path) -> None:
    (folder / "milepost.toml").write_text(FAST_TOML)
    with pytest.raises(ConfigurationError, match=r"Milepost\('module:object'\)"):
        Milepost(MCPServer("x"))


def test_what_is_no_server_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="is a int"):
        Milepost(3)


async def test_a_store_that_is_given_is_opened_and_closed(folder: Path) -> None:
    class Broken:
        closed = False

        async def open(self) -> None:
            raise StoreUnavailable("it is read-only")

        async def aclose(self) -> None:
            self.closed = True

    store = Broken()
    with pytest.raises(StoreUnavailable):
        async with Milepost(MCPServer("x"), store=store).running():  # type: ignore[arg-type]
            pass
    assert store.closed


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (HttpSettings(host="no.such.host.invalid"), "is no address of this machine"),
        (HttpSettings(host="203.0.113.1", port=0), "can't listen on 203.0.113.1"),
        (HttpSettings(port=70000), "there is no port 70000"),
    ],
)
def test_a_place_that_can_not_be_listened_on_is_explained(settings: HttpSettings, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        listen(settings)
    assert says in str(caught.value)


def test_a_port_in_use_is_explained() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigurationError, match="is in use: stop what listens there"):
            listen(HttpSettings(port=taken.getsockname()[1]))


def test_the_url_names_an_address_that_a_client_can_use() -> None:
    with listen(HttpSettings(host="0.0.0.0", port=0)) as sock:  # noqa: S104  what is tested
        assert url_of(sock, "/mcp").startswith("http://127.0.0.1:")
