"""TARGET: from `module:object` or `path/file.py:object` to a server that is ready to be hosted.

`load` imports it, `host` looks at its tools: which are workflows (declared in code by `@workflow`, or by
`milepost.toml`), which ask without being one, and what is wrong with them. Everything that can be refused is
refused here, at start, with one sentence that says what to do; a call never meets a configuration error.

Nothing of an unchanged server is changed, except: the functions of workflows that only `milepost.toml` names
are wrapped (so that the engine sees their exceptions before the SDK masks them), the steps it names are
wrapped before the target is imported, and `share_request_state` swaps the SDK's request-state boundary.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from mcp.server.lowlevel import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.subscriptions import SubscriptionBus

from milepost.core.durations import spoken
from milepost.core.errors import ConfigurationError
from milepost.core.spec import Catalogue, WorkflowSpec
from milepost.wire import asks, sdk
from milepost.wire.declared import DeclaredTool, near
from milepost.wire.seal import UnhurriedCodec
from milepost.wire.spans import spare_spans

if TYPE_CHECKING:
    from starlette.applications import Starlette

Function = Callable[..., Any]
WrapStep = Callable[[Function], Function]
WrapWorkflow = Callable[[Function, WorkflowSpec], Function]


# --- from text to object -------------------------------------------------------------------------


def load(target: str) -> object:
    """The server that `target` names. A function without parameters is called to make it.

    Raises ConfigurationError: it doesn't import (names the failing import), there is no such object (lists the
    servers of that module), or it is something else than a server.
    """
    place, attribute = _split(target)
    module = _import(place, target)
    if not attribute:
        attribute = _only_server(module, target)
    found: Any = module
    for part in attribute.split("."):
        found = getattr(found, part, _MISSING)
        if found is _MISSING:
            raise ConfigurationError(f"TARGET {target!r}: {place} has no {attribute!r}{_candidates(module, attribute)}")
    return as_server(found, target)


_MISSING = object()


def as_server(found: object, target: str = "") -> object:
    """`found` itself if it is a server, else what it makes when called without arguments."""
    if sdk.is_server(found):
        return found
    if inspect.isclass(found) or not callable(found):
        raise ConfigurationError(f"TARGET {target!r} is {_a(found)}, not {_SERVERS}")
    if _needs_arguments(found):
        raise ConfigurationError(
            f"TARGET {target!r} is a function that needs arguments: only one without any can make a server"
        )
    made = found()
    if not sdk.is_server(made):
        if inspect.iscoroutine(made):
            made.close()
        raise ConfigurationError(f"TARGET {target!r} is a function that returned {_a(made)}, not {_SERVERS}")
    return made


_SERVERS = "an MCPServer or a low-level Server of the official SDK, or a FastMCP server"


def _a(found: object) -> str:
    return f"the class {found.__name__}" if inspect.isclass(found) else f"a {type(found).__name__}"


def _needs_arguments(function: Function) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters)


def _split(target: str) -> tuple[str, str]:
    """`travel.server:mcp` -> (`travel.server`, `mcp`); a Windows drive letter is no separator."""
    place, colon, attribute = target.rpartition(":")
    if not colon or (len(place) == 1 and attribute[:1] in "\\/"):
        place, attribute = target, ""
    if not place:
        raise ConfigurationError(f"TARGET {target!r} must be module:object or path/file.py:object")
    return place, attribute


def _import(place: str, target: str) -> ModuleType:
    is_file = place.endswith(".py") or "/" in place or "\\" in place
    path = Path(place)
    if is_file and not path.is_file():
        raise ConfigurationError(f"TARGET {target!r}: there is no file {place}")
    try:
        return _import_file(path) if is_file else _import_module(place)
    except ConfigurationError:
        raise
    except (Exception, SystemExit) as exc:
        raise ConfigurationError(f"TARGET {target!r} does not import: {_blame(exc, place)}") from exc


def _import_module(name: str) -> ModuleType:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    return importlib.import_module(name)


def _import_file(path: Path) -> ModuleType:
    """Import a file under its own name; one inside a package as part of that package, so relative imports work."""
    path = path.resolve()
    parts, root = [path.stem], path.parent
    while (root / "__init__.py").is_file():
        parts.insert(0, root.name)
        root = root.parent
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    name = ".".join(parts)
    known = sys.modules.get(name)
    if known is not None and getattr(known, "__file__", None) != str(path):
        name = f"{name}_{abs(hash(str(path))):x}"  # another module has the name: a file is never mistaken for it
    elif len(parts) > 1 or known is not None:
        return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # noqa: S101  a .py file always has a loader
    assert spec.loader is not None  # noqa: S101
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _blame(exc: BaseException, place: str) -> str:
    """What went wrong, and the line of the author's code at which it did."""
    what = f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__
    if isinstance(exc, SyntaxError):
        return f"{what} ({exc.filename}, line {exc.lineno})"
    if (
        isinstance(exc, ModuleNotFoundError)
        and exc.name == place.split(".", maxsplit=1)[0]
        and "." not in (exc.name or "")
    ):
        return f"there is no module {exc.name!r} here or on the Python path"
    frames = [f for f in traceback.extract_tb(exc.__traceback__) if not _is_machinery(f.filename)]
    return f"{what} ({frames[-1].filename}, line {frames[-1].lineno})" if frames else what


def _is_machinery(filename: str) -> bool:
    return filename.startswith("<frozen") or filename in (__file__, importlib.__file__)


def _servers_in(module: ModuleType) -> list[str]:
    return [name for name, value in vars(module).items() if sdk.is_server(value) and not name.startswith("_")]


def _only_server(module: ModuleType, target: str) -> str:
    servers = _servers_in(module)
    if len(servers) == 1:
        return servers[0]
    choice = f"one of {', '.join(servers)}" if servers else "a name; this module holds no server"
    raise ConfigurationError(f"TARGET {target!r} names no object: write {target}:NAME with {choice}")


def _candidates(module: ModuleType, wanted: str) -> str:
    servers = _servers_in(module)
    if servers:
        return f". Servers in it: {', '.join(servers)}"
    return near(wanted, [name for name in vars(module) if not name.startswith("_")]) or ". It holds no server"


# --- steps that only milepost.toml names ---------------------------------------------------------


def wrap_steps(declared: Mapping[str, DeclaredTool], as_step: WrapStep) -> list[str]:
    """Wrap the functions that `steps = [...]` names, in their modules. Call it BEFORE the target is imported.

    A module that was imported earlier by `from agency.api import hold_seat` would keep the bare function, which
    is why the order matters. Returns the references. Raises ConfigurationError.
    """
    wanted = list(dict.fromkeys(step for tool in declared.values() for step in tool.steps))
    for reference in wanted:
        _wrap_step(reference, as_step)
    return wanted


def _wrap_step(reference: str, as_step: WrapStep) -> None:
    place, _, dotted = reference.partition(":")
    try:
        owner: Any = _import_module(place)
    except (Exception, SystemExit) as exc:
        raise ConfigurationError(
            f"milepost.toml: the step {reference!r} does not import: {_blame(exc, place)}"
        ) from exc
    *path, name = dotted.split(".")
    for part in path:
        owner = getattr(owner, part, None)
    function = getattr(owner, name, None)
    if not callable(function) or inspect.isclass(function):
        raise ConfigurationError(
            f"milepost.toml: the step {reference!r} is no function of {place}{near(name, vars(owner) if owner else ())}"
        )
    if not asks.is_step(function):
        setattr(owner, name, as_step(function))


# --- a hosted server -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ToolLane:
    """How one tool is served, and why; what `milepost lanes` shows."""

    tool: str
    lane: Literal["stateless", "stateful", "hot"]
    why: str
    asks: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Hosted:
    """A server, looked at and ready to be served."""

    name: str
    origin: object
    """The server as its author made it."""
    server: Server[Any]
    """The low-level server inside: what the kernel runs."""
    lifespan: Callable[[], AbstractAsyncContextManager[Any]]
    """Enter once per process; gives the lifespan state that handlers see."""
    catalogue: Catalogue
    tools: dict[str, ToolLane]
    """Those that are known. A composer may add what it learns while the server runs."""
    auth: Any = None
    """The SDK's AuthSettings, or FastMCP's AuthProvider; None: no tokens are checked."""
    token_verifier: Any = None
    custom_routes: tuple[Any, ...] = ()
    bus: SubscriptionBus | None = None
    unlisted_may_ask: bool = False
    """Whether tools that can't be listed before the server runs may ask: such a call is served hot."""

    def web(self, path: str) -> Starlette | None:
        """The SDK's own Starlette app around `path`: auth routes, token checks, metadata, custom routes."""
        return sdk.web_of(self.origin, path)


def lifespan_of(server: object) -> AbstractAsyncContextManager[Any]:
    """The server's own lifespan, to be entered once per process before `host`; gives the lifespan state."""
    lowlevel = sdk.lowlevel_of(server)
    return lowlevel.lifespan(lowlevel)


async def host(
    target: object,
    declared: Mapping[str, DeclaredTool] | None = None,
    *,
    wrap: WrapWorkflow | None = None,
    unlisted_may_ask: bool = False,
) -> Hosted:
    """Look at a server's tools and decide their lanes.

    `declared`: the tables of `milepost.toml`; `wrap`: the engine's wrapper for the functions of workflows that are
    declared only there; `unlisted_may_ask`: of a low-level server, whose tools are known only once it runs (a proxy's
    are another server's), any may ask. Raises ConfigurationError for anything that could not be served as declared.
    """
    server = as_server(target)
    lowlevel = sdk.lowlevel_of(server)
    handles = {handle.name: handle for handle in await sdk.tools_of(server)}
    declared = declared or {}
    _refuse_unknown(declared, handles, known_all=server is not lowlevel)
    lanes, specs = {}, {}
    for name in [*handles, *(n for n in declared if n not in handles)]:
        handle = handles.get(name) or sdk.ToolHandle(name, None)
        spec, why = _spec_of(handle, declared.get(name))
        if spec is not None:
            _refuse_unfit(handle, spec)
            specs[name] = spec
            _wrap_declared(handle, spec, wrap)
        lanes[name] = _lane(handle, spec, why)
    spare_spans(lowlevel)
    auth, verifier = sdk.auth_of(server)
    return Hosted(
        name=lowlevel.name,
        origin=server,
        server=lowlevel,
        lifespan=functools.partial(lifespan_of, server),
        catalogue=Catalogue(specs),
        tools=lanes,
        auth=auth,
        token_verifier=verifier,
        custom_routes=sdk.custom_routes_of(server),
        bus=sdk.bus_of(server),
        unlisted_may_ask=unlisted_may_ask,
    )


def _refuse_unknown(declared: Mapping[str, DeclaredTool], handles: Mapping[str, Any], *, known_all: bool) -> None:
    """A low-level server lists its tools only at run time, so there a name can't be checked."""
    for name in declared:
        if known_all and name not in handles:
            tools = ", ".join(handles) or "none"
            raise ConfigurationError(
                f"milepost.toml: the server has no tool {name!r}{near(name, handles)}. Its tools: {tools}."
            )


def _spec_of(handle: sdk.ToolHandle, declared: DeclaredTool | None) -> tuple[WorkflowSpec | None, str]:
    """The workflow's declaration, and where it stands. What `milepost.toml` says is stronger than the code."""
    own = getattr(handle.fn, "__milepost__", None)
    if declared is not None:
        if declared.spec is None and own is not None:
            raise ConfigurationError(
                f"milepost.toml: {handle.name!r} is a @workflow in its code and can't be made stateless: its steps and "
                "stages need a run. Remove the table, or the decorator."
            )
        if declared.spec is not None and own not in (None, declared.spec):  # equal: wrapped by an earlier start
            raise ConfigurationError(
                f"milepost.toml: {handle.name!r} is a @workflow in its code already: give its settings to the decorator"
            )
        return declared.spec, "milepost.toml"
    return (own, "@workflow") if isinstance(own, WorkflowSpec) else (None, "")


def _refuse_unfit(handle: sdk.ToolHandle, spec: WorkflowSpec) -> None:
    fn = handle.fn
    if fn is None:
        return
    if asks.returns_input_required(fn):
        raise ConfigurationError(
            f"the tool {handle.name!r} returns InputRequiredResult and can't be a workflow: its rounds are the SDK's "
            "own. Ask with ctx.elicit() instead, or leave it stateless."
        )
    if not asks.is_async(fn):
        raise ConfigurationError(
            f"the tool {handle.name!r} is a plain function and can't be a workflow: write `async def`, so that it "
            "can wait for answers. Work that blocks belongs in a step (a step may be a plain function)."
        )
    known = _parameters(fn)
    for name in spec.same_run_by or ():
        if name not in known:
            raise ConfigurationError(
                f"the tool {handle.name!r} has no argument {name!r} (same_run_by){near(name, known)}"
            )


def _parameters(fn: Function) -> list[str]:
    return list(inspect.signature(inspect.unwrap(fn)).parameters)


def _wrap_declared(handle: sdk.ToolHandle, spec: WorkflowSpec, wrap: WrapWorkflow | None) -> None:
    """Let the engine see uncaught exceptions of a workflow that its code doesn't call one."""
    if wrap is not None and handle.fn is not None and getattr(handle.fn, "__milepost__", None) is None:
        handle.replace(wrap(handle.fn, spec))


def _lane(handle: sdk.ToolHandle, spec: WorkflowSpec | None, why: str) -> ToolLane:
    reading = asks.read(handle.fn) if handle.fn is not None else asks.Reading()
    if spec is not None:
        return _stateful(handle.name, spec, why, reading)
    if reading.imperative:
        return ToolLane(
            handle.name,
            "hot",
            "asks in the middle of its work and is no workflow",
            asks=reading.asks,
            stages=tuple(stage.name for stage in reading.stages),
            warnings=(
                "waits for answers in its replica's memory and is lost with it: make it a @workflow, or stateful in "
                "milepost.toml",
            ),
        )
    why = "asks between calls, by the SDK's own rounds" if reading.asks else "asks nothing"
    if handle.fn is None:
        why = "its function is out of reach, so what it asks is not known"
    return ToolLane(handle.name, "stateless", why, asks=reading.asks)


def _stateful(name: str, spec: WorkflowSpec, why: str, reading: asks.Reading) -> ToolLane:
    names = dict.fromkeys([*spec.stages, *(stage.name for stage in reading.stages)])
    undeclared = [stage.name for stage in reading.stages if spec.stages and stage.name not in spec.stages]
    limits = [f"{stage.name}: {', '.join(stage.limits)}" for stage in reading.stages if stage.limits]
    if spec.timeout is not None:
        limits.insert(0, f"run: timeout={spoken(spec.timeout)}")
    warnings = [*reading.hazards]
    if undeclared:
        warnings.append(f"the stage {undeclared[0]!r} is not among stages=[...], so its progress can't be placed")
    if not spec.replay_safe:
        why = 'milepost.toml says stateful, but not replay = "safe"'
        warnings.insert(
            0,
            'is served hot, and a run that loses its replica is stuck: say replay = "safe" if what it does between its '
            "questions may be done again",
        )
    return ToolLane(
        name,
        "stateful" if spec.replay_safe else "hot",
        why,
        asks=reading.asks,
        stages=tuple(names),
        limits=tuple(limits),
        warnings=tuple(warnings),
    )


def share_request_state(hosted: Hosted, keys: Sequence[bytes], ttl: float) -> None:
    """Let the SDK's own `requestState` (its `Resolve` and hand-made rounds) be read on every replica.

    The boundary that the SDK puts into the server's public middleware list seals with a key of this process alone;
    it is replaced by one over the key ring. `keys[0]` seals, all open; `ttl`: seconds per round. Idempotent.
    """
    security = RequestStateSecurity(codec=UnhurriedCodec(keys), ttl=ttl)
    boundary = RequestStateBoundary(security, default_audience=hosted.server.name)
    chain = hosted.server.middleware
    for place, middleware in enumerate(chain):
        if isinstance(middleware, RequestStateBoundary):
            chain[place] = boundary
