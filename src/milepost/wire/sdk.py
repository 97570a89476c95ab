"""The names of the SDKs that we use although nobody promised them to us, in one table.

Everything else that we need from `mcp` and `fastmcp` is public. What isn't stands in `BORROWED`, each
with why we need it and what the public way lacks; `check_borrowed` resolves every name, so that a new
SDK release fails one test that names what moved, and one file changes. Nobody else in the package
writes a name with a leading underscore of an SDK.

FastMCP is an optional extra, and dear to import (half a second of every start): it is never imported here, only
found among the modules that the server's author has imported.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from mcp.server import MCPServer
from mcp.server._otel import OpenTelemetryMiddleware
from mcp.server.auth.middleware.auth_context import auth_context_var
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.lowlevel import Server
from mcp.server.subscriptions import SubscriptionBus

if TYPE_CHECKING:
    from starlette.applications import Starlette


def _imported(module: str) -> Any | None:
    """A module of FastMCP, if the server's author has imported it."""
    return sys.modules.get(module)


@dataclass(frozen=True, slots=True)
class Borrowed:
    """One name of an SDK that is private, or public without a promise."""

    module: str
    owner: str
    """The class that carries it, "" for a name of the module itself."""
    name: str
    why: str
    public: str
    """What the public way lacks."""
    fastmcp: bool = False


BORROWED: tuple[Borrowed, ...] = (
    Borrowed(
        "mcp.server",
        "MCPServer",
        "_tool_manager",
        "the function behind a tool: its declaration, its source, and the wrapper of a milepost.toml workflow",
        "list_tools() gives schemas, not functions",
    ),
    Borrowed(
        "mcp.server",
        "MCPServer",
        "_lowlevel_server",
        "the low-level server that the kernel runs",
        "session_manager.app, but only after streamable_http_app() has built a second transport",
    ),
    Borrowed(
        "mcp.server",
        "MCPServer",
        "_subscriptions",
        "the bus of an unchanged server, to carry its change notices to other replicas",
        "only a bus that the author passes in is reachable",
    ),
    Borrowed(
        "mcp.server",
        "MCPServer",
        "_token_verifier",
        "whether, and with what, the author checks tokens",
        "streamable_http_app() hides it inside a middleware",
    ),
    Borrowed(
        "mcp.server",
        "MCPServer",
        "_custom_starlette_routes",
        "the author's own HTTP routes",
        "custom_route() only writes",
    ),
    Borrowed(
        "mcp.server._otel",
        "",
        "OpenTelemetryMiddleware",
        "to find the SDK's tracing among a server's middleware, and pass it by where nobody records spans",
        "Server.middleware is public, the classes of what stands in it are not",
    ),
    Borrowed(
        "fastmcp",
        "FastMCP",
        "_mcp_server",
        "the low-level server that the kernel runs; its lifespan drives FastMCP's",
        "http_app() makes one only inside a lifespan that also starts a session manager",
        fastmcp=True,
    ),
    Borrowed(
        "fastmcp",
        "FastMCP",
        "_additional_http_routes",
        "the author's own HTTP routes",
        "custom_route() only writes",
        fastmcp=True,
    ),
    Borrowed(
        "fastmcp.server.http",
        "",
        "_current_http_request",
        "an attempt must see no HTTP request, as a recovered one has none",
        "there is no way to clear it",
        fastmcp=True,
    ),
    Borrowed(
        "fastmcp.server.providers.fastmcp_provider",
        "FastMCPProviderTool",
        "_server",
        "the server behind a mounted tool, to find its function",
        "the tool of a mount shows only its schema",
        fastmcp=True,
    ),
    Borrowed(
        "fastmcp.server.providers.fastmcp_provider",
        "FastMCPProviderTool",
        "_original_name",
        "a mounted tool's name on its own server",
        "the tool of a mount shows only its outer name",
        fastmcp=True,
    ),
)


def missing_borrowed(table: Sequence[Borrowed] = BORROWED) -> list[str]:
    """The names of `table` that the installed SDKs no longer have, as `module:Class.name`."""
    fastmcp = importlib.util.find_spec("fastmcp") is not None
    return [
        f"{b.module}:{b.owner + '.' if b.owner else ''}{b.name}"
        for b in table
        if (fastmcp or not b.fastmcp) and not _resolves(b)
    ]


def _resolves(borrowed: Borrowed) -> bool:
    try:
        module = importlib.import_module(borrowed.module)
    except ImportError:
        return False
    if not borrowed.owner:
        return hasattr(module, borrowed.name)
    owner = getattr(module, borrowed.owner, None)
    if owner is None:
        return False
    if hasattr(owner, borrowed.name) or borrowed.name in getattr(owner, "__private_attributes__", {}):
        return True
    try:
        return hasattr(owner("sample"), borrowed.name)
    except TypeError:  # not to be made from a name alone
        return False


# --- what a server is, and where its parts are ---------------------------------------------------


def is_server(candidate: object) -> bool:
    """Whether this is a server that Milepost can host."""
    return isinstance(candidate, MCPServer | Server) or is_fastmcp(candidate)


def is_fastmcp(candidate: object) -> bool:
    fastmcp = _imported("fastmcp")
    return fastmcp is not None and isinstance(candidate, fastmcp.FastMCP)


def lowlevel_of(server: object) -> Server[Any]:
    """The low-level server inside `server`."""
    if isinstance(server, Server):
        return server
    return cast("Server[Any]", server._mcp_server if is_fastmcp(server) else server._lowlevel_server)  # type: ignore[attr-defined]


def is_tracing(middleware: object) -> bool:
    """Whether this is what makes the SDK's spans."""
    return isinstance(middleware, OpenTelemetryMiddleware)


def bus_of(server: object) -> SubscriptionBus | None:
    """The bus on which `ctx.notify_*` of an SDK server publishes; None where there is none of its own."""
    return server._subscriptions if isinstance(server, MCPServer) else None


def custom_routes_of(server: object) -> tuple[Any, ...]:
    """The author's own HTTP routes (Starlette routes)."""
    if isinstance(server, MCPServer):
        return tuple(server._custom_starlette_routes)
    return tuple(server._additional_http_routes) if is_fastmcp(server) else ()  # type: ignore[attr-defined]


def auth_of(server: object) -> tuple[Any, Any]:
    """(auth settings or provider, token verifier) of the server; (None, None) where it checks no tokens."""
    if isinstance(server, MCPServer):
        return server.settings.auth, server._token_verifier
    provider = getattr(server, "auth", None) if is_fastmcp(server) else None
    return provider, provider


def web_of(server: object, path: str) -> Starlette | None:
    """The SDK's own Starlette app: auth routes, metadata, token checks, custom routes, and `path` for MCP.

    Its lifespan is never run: it would start the SDK's session manager.
    """
    if isinstance(server, MCPServer):
        return server.streamable_http_app(streamable_http_path=path)
    return cast("Starlette", server.http_app(path=path)) if is_fastmcp(server) else None  # type: ignore[attr-defined]


# --- the functions behind the tools --------------------------------------------------------------


@dataclass(slots=True)
class ToolHandle:
    """One registered tool: its name on the wire, and the object that holds its function (None: out of reach)."""

    name: str
    holder: Any | None

    @property
    def fn(self) -> Callable[..., Any] | None:
        return getattr(self.holder, "fn", None)

    def replace(self, fn: Callable[..., Any]) -> None:
        """Let the tool call `fn` from now on; its schema stays."""
        assert self.holder is not None  # noqa: S101  callers check `fn` first
        self.holder.fn = fn


async def tools_of(server: object) -> list[ToolHandle]:
    """All tools of an SDK or FastMCP server, in the order in which it lists them."""
    if isinstance(server, MCPServer):
        return [ToolHandle(tool.name, tool) for tool in server._tool_manager.list_tools()]
    if not is_fastmcp(server):
        return []
    with trusting_local():
        listed = await server.list_tools(run_middleware=False)  # type: ignore[attr-defined]
        names = dict.fromkeys(tool.name for tool in listed)
        return [ToolHandle(name, await _holder(server, name)) for name in names]


async def _holder(server: Any, name: str) -> Any | None:
    """The FastMCP tool object that holds the function, behind mounts and transformations."""
    tool: Any = await server.get_tool(name)
    while True:
        if _is(tool, "fastmcp.server.providers.fastmcp_provider", "FastMCPProviderTool"):
            tool = await tool._server.get_tool(tool._original_name)
        elif _is(tool, "fastmcp.tools.tool_transform", "TransformedTool"):
            tool = tool.parent_tool
        else:
            return tool if hasattr(tool, "fn") else None


def _is(candidate: object, module: str, name: str) -> bool:
    found = _imported(module)
    return found is not None and isinstance(candidate, getattr(found, name))


# --- who calls, as a running tool sees it --------------------------------------------------------


@contextmanager
def trusting_local() -> Iterator[None]:
    """Let FastMCP treat what happens inside as stdio, where its per-tool `auth` checks don't apply.

    For stdio itself, and for looking at the tools at start, when nobody calls yet.
    """
    context = _imported("fastmcp.server.context")
    if context is None:
        yield
        return
    token = context.set_transport("stdio")
    try:
        yield
    finally:
        context.reset_transport(token)


@contextmanager
def calling_as(user: AuthenticatedUser | None) -> Iterator[None]:
    """Let the tool see this user and no HTTP request, whatever this task inherited from a request."""
    token = auth_context_var.set(user)
    http = _imported("fastmcp.server.http")
    request = http._current_http_request.set(None) if http is not None else None
    try:
        yield
    finally:
        auth_context_var.reset(token)
        if http is not None:
            http._current_http_request.reset(request)
