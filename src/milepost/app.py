"""The composition root: from settings to the running thing, and an ASGI app around it.

    app = Milepost(mcp)                          # then: uvicorn travel:app
    app = Milepost("travel.server:mcp")          # steps named in milepost.toml need this form

Here, and only here, the parts are put together: the store is opened, the server looked at and its lifespan
entered, the engine started, the endpoint built; and taken down in the opposite order. A drain ends streams
with `retry`, lets steps in flight be recorded and gives the runs back, and only then are connections closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

import structlog
from starlette.applications import Starlette
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from milepost.browser.files import BrowserFiles
from milepost.core.errors import ConfigurationError, StoreError
from milepost.engine.runs import Runs
from milepost.engine.verbs import step, wrap_function
from milepost.logs import Scrubber, configure
from milepost.seams import Store
from milepost.settings import Settings
from milepost.store.clock import SystemClock
from milepost.store.url import open_store
from milepost.wire.declared import declared_tools
from milepost.wire.endpoint import Endpoint
from milepost.wire.kernel import SdkKernel
from milepost.wire.session_ids import SessionIds
from milepost.wire.target import Hosted, as_server, host, lifespan_of, load, share_request_state, wrap_steps

log = structlog.get_logger("milepost")


@dataclass(frozen=True, slots=True)
class Parts:
    """What runs between start and stop."""

    hosted: Hosted
    state: Any
    """What the server's lifespan yielded."""
    store: Store
    runs: Runs
    endpoint: Endpoint
    shell: Starlette | None
    """The SDK's own web app around our endpoint, where it has auth or custom routes."""


class Milepost:
    """An MCP server with durable workflows, as an ASGI app."""

    def __init__(
        self,
        server: object,
        *,
        store: str | Store | None = None,
        settings: Settings | None = None,
        scrubber: Scrubber | None = None,
        unlisted_may_ask: bool = False,
        **flags: Any,
    ) -> None:
        """`server`: an SDK or FastMCP server, or its TARGET text. `store`: a URL, or a store that isn't open.

        `unlisted_may_ask`: tools of a low-level server, which are known only once it runs, may ask their caller.
        `flags`: single settings (`single_user=True`, `http={"path": "/"}`), stronger than environment and file.
        Raises ConfigurationError.
        """
        if isinstance(store, str):
            flags["store"] = {**flags.get("store", {}), "url": store}
        self.settings = settings or Settings.read(**flags)
        self._store = store if not isinstance(store, str) else None
        self._declared = declared_tools(self.settings.tools)
        self._scrubber = scrubber
        self._unlisted_may_ask = unlisted_may_ask
        self._browser = BrowserFiles() if self.settings.http.browser_client else None
        self._parts: Parts | None = None
        self._draining: asyncio.Task[None] | None = None
        self._server = self._load(server)

    def _load(self, server: object) -> object:
        if isinstance(server, str):
            wrap_steps(self._declared, step)
            return load(server)
        steps = [name for tool in self._declared.values() for name in tool.steps]
        if steps:
            raise ConfigurationError(
                f"milepost.toml names {steps[0]!r} as a step, but the server is imported already: give its name "
                "instead of the server, Milepost('module:object')"
            )
        return as_server(server)

    @property
    def parts(self) -> Parts:
        """The running parts. Raises RuntimeError before start and after stop."""
        if self._parts is None:
            raise RuntimeError("Milepost isn't running: its lifespan has not been entered")
        return self._parts

    # --- life -------------------------------------------------------------------------------------

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Parts]:
        """Start, and stop on the way out. Raises ConfigurationError, StoreError.

        Where nobody has configured structlog, our logs are set up too: `uvicorn travel:app` needs no more.
        """
        if not structlog.is_configured():
            self._scrubber = configure(self.settings.log, scrubber=self._scrubber)
        async with AsyncExitStack() as stack:
            store = await self._open_store(stack)
            # The server's own lifespan first: it may register tools, or connect to where they come from.
            state = await stack.enter_async_context(lifespan_of(self._server))
            hosted = await host(
                self._server, self._declared, wrap=wrap_function, unlisted_may_ask=self._unlisted_may_ask
            )
            runs = self._runs(store, hosted, state)
            endpoint = self._endpoint(store, hosted, state, runs)
            await runs.start()
            stack.push_async_callback(runs.drain)
            stack.push_async_callback(endpoint.aclose)
            await endpoint.start()
            self._parts = Parts(hosted, state, store, runs, endpoint, self._shell(hosted, endpoint))
            try:
                yield self._parts
            finally:
                await self.drain()
                self._parts = None

    async def _open_store(self, stack: AsyncExitStack) -> Store:
        settings = self.settings
        store = self._store or open_store(settings.store.url, sqlite=settings.sqlite(), postgres=settings.postgresql())
        stack.push_async_callback(store.aclose)
        await store.open()
        if self._scrubber is not None:
            self._scrubber.reference = SessionIds(store.secret("sessions")).reference
        return store

    def _runs(self, store: Store, hosted: Hosted, state: Any) -> Runs:
        return Runs(
            store,
            SdkKernel(hosted.server, state),
            hosted.catalogue,
            clock=SystemClock(),
            tuning=self.settings.engine.tuning(),
            release=self.settings.release,
        )

    def _endpoint(self, store: Store, hosted: Hosted, state: Any, runs: Runs) -> Endpoint:
        limits = self.settings.limits()
        if not self.settings.http.own_request_state:
            keys = list(limits.request_state_keys) or [store.secret("sdk-request-state")]
            share_request_state(hosted, keys, self.settings.http.request_state_ttl)
        return Endpoint(hosted, state, runs, store, limits)

    def _shell(self, hosted: Hosted, endpoint: ASGIApp) -> Starlette | None:
        if hosted.auth is None and not hosted.custom_routes:
            return None
        path = self.settings.http.path
        shell = hosted.web(path)
        if shell is not None:
            _put_inside(shell, path, endpoint)
        return shell

    async def drain(self) -> None:
        """Take no more work, end the streams, let what is in flight be recorded. Idempotent."""
        if self._parts is None:
            return
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain(self._parts))
        await asyncio.shield(self._draining)

    async def _drain(self, parts: Parts) -> None:
        log.info("draining")
        # At the same time: a workflow's step is given its time while other calls are, not after them.
        await asyncio.gather(parts.endpoint.drain(), parts.runs.backend.drain())
        await parts.runs.drain()

    # --- ASGI -------------------------------------------------------------------------------------

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        parts = self._parts
        if path == "/healthz":
            await _say(send, 200, {"status": "ok"})
        elif path == "/readyz" or parts is None:
            reason = self.trouble()
            await _say(send, 503 if reason else 200, {"status": reason or "ready"})
        elif path == self.settings.http.path and (parts.shell is None or parts.hosted.auth is None):
            await parts.endpoint(scope, receive, send)
        elif self._browser is not None and self._browser.has(path) and not _routed(parts.shell, scope):
            await self._browser.serve(scope, send)
        elif parts.shell is not None:
            await parts.shell(scope, receive, send)
        else:
            await _say(send, 404, {"error": f"nothing is here: the MCP endpoint is {self.settings.http.path}"})

    def trouble(self) -> str | None:
        """Why this replica should get no new work, or None."""
        if self._parts is None:
            return "not started"
        if self._draining is not None:
            return "draining"
        return self._parts.store.healthy()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """The server's start and stop, as its ASGI server tells them."""
        await receive()
        started = False
        try:
            async with self.running():
                with self._draining_on_signals():
                    started = True
                    await send({"type": "lifespan.startup.complete"})
                    await receive()
        except (ConfigurationError, StoreError) as exc:
            await send({"type": _failed(started), "message": str(exc)})
        except BaseException as exc:
            await send({"type": _failed(started), "message": f"{type(exc).__name__}: {exc}"})
            raise
        else:
            await send({"type": "lifespan.shutdown.complete"})

    @contextmanager
    def _draining_on_signals(self) -> Iterator[None]:
        """Begin to drain as soon as the ASGI server is told to stop.

        It first waits for all responses to end and says `lifespan.shutdown` after that; a stream that waits for a
        person would hold it for ever.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        loop = asyncio.get_running_loop()
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        for number, before in handlers.items():
            if callable(before) and before is not signal.default_int_handler:
                signal.signal(number, _also(before, lambda: loop.call_soon_threadsafe(self._drain_soon)))
        try:
            yield
        finally:
            for number, before in handlers.items():
                signal.signal(number, before)

    def _drain_soon(self) -> None:
        if self._parts is not None and self._draining is None:
            self._draining = asyncio.create_task(self._drain(self._parts))


Handler = Callable[[int, FrameType | None], Any]


def _also(before: Handler, act: Callable[[], object]) -> Handler:
    def handle(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            act()
        before(number, frame)

    return handle


def _routed(shell: Starlette | None, scope: Scope) -> bool:
    """Whether the author has a route of their own for this path: theirs comes before ours."""
    return shell is not None and any(route.matches(scope)[0] is not Match.NONE for route in shell.routes)


def _failed(started: bool) -> str:
    return "lifespan.shutdown.failed" if started else "lifespan.startup.failed"


def _put_inside(shell: Starlette, path: str, endpoint: ASGIApp) -> None:
    """Let the SDK's app lead to our endpoint where it led to its own, inside its check of tokens."""
    for route in shell.routes:
        if getattr(route, "path", None) == path:
            guard: Any = getattr(route, "app", None)
            if hasattr(guard, "app"):
                guard.app = endpoint
            else:
                route.app = endpoint  # type: ignore[attr-defined]  # a Starlette Route has one
            return
    raise ConfigurationError(f"the server's own web app has no route {path!r}")


async def _say(send: Send, status: int, body: dict[str, Any]) -> None:
    data = json.dumps(body).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(data)).encode())]
    if status == 503:
        headers.append((b"retry-after", b"5"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data})
