"""The author's verbs: `workflow`, `step`, `stage`, `key`, `current_run`, `current_step`, `now`, `uuid`.

They do something only inside an attempt. Called anywhere else (a unit test, a script) a workflow is a
plain coroutine function, a step a plain call, and a stage does nothing.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, ParamSpec, TypeVar, overload
from uuid import UUID, uuid4

from milepost.core.codec import check_name
from milepost.core.durations import limit
from milepost.core.errors import ConfigurationError, MisplacedCall
from milepost.core.spec import SameRun, StepSpec, WorkflowSpec
from milepost.engine.context import ATTEMPT, KEY, STEP, RunInfo, StepInfo
from milepost.engine.stages import stage
from milepost.engine.steps import StepFunction, call_step, plain_call

__all__ = ["current_run", "current_step", "key", "now", "stage", "step", "uuid", "workflow", "wrap_function"]

P = ParamSpec("P")
T = TypeVar("T")

SPEC_ATTRIBUTE = "__milepost__"
"""Where a workflow function carries its WorkflowSpec."""


@overload
def workflow(function: Callable[P, Awaitable[T]], /) -> Callable[P, Awaitable[T]]: ...


@overload
def workflow(
    *,
    stages: Sequence[str] = (),
    version: int = 1,
    accepts: set[int] | frozenset[int] | None = None,
    same_run: SameRun | None = None,
    same_run_by: Sequence[str] | None = None,
    timeout: float | str | None = None,
) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Awaitable[T]]]: ...


def workflow(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a tool a workflow. Put it under the SDK's own decorator: `@mcp.tool()` above, `@workflow(...)` below.

    Args:
        stages: names of the stages, in order; progress is counted over them.
        version: raise it when the code no longer fits the journals of older runs.
        accepts: versions of runs that this code can go on with (default: only `version`).
        same_run: what an equal call does while a run is unfinished: "ask" the person, "always" attach, "never"
            (default: the setting `engine.same_run`, which is "ask").
        same_run_by: names of the arguments that say "the same call" (default: all).
        timeout: working time of the whole run, in seconds or as "10m" (default: the setting `run_timeout`).

    Raises:
        ConfigurationError: the function isn't `async def`, or an option has no meaning.
    """
    if function is not None:
        return wrap_function(function, WorkflowSpec())
    spec = make_spec(options)
    return lambda decorated: wrap_function(decorated, spec)


def make_spec(options: Mapping[str, Any]) -> WorkflowSpec:
    """A WorkflowSpec from the options of `workflow`. Raises ConfigurationError."""
    known = {"stages", "version", "accepts", "same_run", "same_run_by", "timeout"}
    if unknown := sorted(set(options) - known):
        raise ConfigurationError(f"workflow() has no option {unknown[0]!r}; it knows {', '.join(sorted(known))}")
    version = options.get("version", 1)
    same_run = options.get("same_run")
    if same_run not in (None, "ask", "always", "never"):
        raise ConfigurationError(f"same_run must be 'ask', 'always' or 'never', not {same_run!r}")
    if not isinstance(version, int) or version < 1:
        raise ConfigurationError(f"version must be a whole number from 1, not {version!r}")
    stages = tuple(options.get("stages") or ())
    if len(set(stages)) != len(stages):
        raise ConfigurationError("a stage name stands twice in stages")
    by = options.get("same_run_by")
    return WorkflowSpec(
        version=version,
        accepts=frozenset(options.get("accepts") or ()) | {version},
        stages=stages,
        same_run=same_run,
        same_run_by=None if by is None else tuple(by),
        timeout=limit(options.get("timeout")),
    )


def wrap_function(function: Callable[..., Any], spec: WorkflowSpec) -> Callable[..., Any]:
    """The function with its spec, so that the engine sees when it is entered and what it raises.

    The SDKs mask exceptions on their way out; this wrapper is inside of that. Raises ConfigurationError.
    """
    if not inspect.iscoroutinefunction(function):
        raise ConfigurationError(
            f"{getattr(function, '__qualname__', function)!r} is not `async def`; "
            "a workflow waits for people, so it must be"
        )

    @functools.wraps(function)
    async def run(*args: Any, **kwargs: Any) -> Any:
        attempt = ATTEMPT.get()
        if attempt is None:
            return await function(*args, **kwargs)
        attempt.entered()
        error: Exception | None = None
        try:
            return await function(*args, **kwargs)
        except Exception as raised:
            error = raised
            raise
        finally:
            attempt.left(error)

    setattr(run, SPEC_ATTRIBUTE, spec)
    return run


@overload
def step(function: Callable[P, Awaitable[T]], /) -> Callable[P, Awaitable[T]]: ...


@overload
def step(function: Callable[P, T], /) -> Callable[P, Awaitable[T]]: ...


@overload
def step(
    *,
    name: str | None = None,
    timeout: float | str = 60.0,
    retries: int = 0,
    idempotent: bool = False,
    backoff: float = 0.5,
) -> Callable[[Callable[P, Any]], Callable[P, Awaitable[Any]]]: ...


def step(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function a step: within a run it runs once, is recorded, and is then read from the journal.

    Args:
        name: what the journal calls it (default: the function's qualified name); keep it when you rename.
        timeout: the limit of one try, in seconds or as "30s" (default 60).
        retries: how often it may be tried again after it raised (default 0).
        idempotent: whether it may also be tried again when a try's outcome is unknown (a time-out).
        backoff: seconds before the first retry, then doubled.

    A function that isn't `async def` runs in a thread. Arguments and results must be plain data.

    Raises (when called in a run):
        StepError: it failed for good. `kind` and `message` tell what it raised.
        Unstorable: what it was given or returned can't be recorded.
    """
    if function is not None:
        return _make_step(function, {})
    return lambda decorated: _make_step(decorated, options)


def _make_step(function: Callable[..., Any], options: Mapping[str, Any]) -> Callable[..., Any]:
    made = StepFunction.of(function, _step_spec(function, options))

    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        attempt = ATTEMPT.get()
        if attempt is None or STEP.get() is not None:
            return await plain_call(made, args, kwargs)
        return await call_step(attempt, made, args, kwargs)

    return call


def _step_spec(function: Callable[..., Any], options: Mapping[str, Any]) -> StepSpec:
    timeout = limit(options.get("timeout", 60.0))
    retries = options.get("retries", 0)
    if timeout is None or timeout <= 0:
        raise ConfigurationError(f"a step's timeout must be above 0, not {options.get('timeout')!r}")
    if not isinstance(retries, int) or retries < 0:
        raise ConfigurationError(f"a step's retries must be a whole number from 0, not {retries!r}")
    name = options.get("name") or function.__qualname__
    check_name("name of the step", name)
    return StepSpec(name, timeout, retries, bool(options.get("idempotent", False)), float(options.get("backoff", 0.5)))


@contextmanager
def key(name: str) -> Iterator[None]:
    """Tell apart equal calls on concurrent branches: `with key("ann"): await email(...)`. Nests as a path.

    Raises Unstorable for a name that not every store can keep: one with a character 0 or half a character in it.
    """
    check_name("key", name)
    token = KEY.set(f"{KEY.get()}/{name}" if KEY.get() else name)
    try:
        yield
    finally:
        KEY.reset(token)


def current_run() -> RunInfo:
    """The run that this code is part of. Raises MisplacedCall outside one."""
    attempt = ATTEMPT.get()
    if attempt is None:
        raise MisplacedCall("current_run() has a meaning only inside a workflow")
    return attempt.info


def current_step() -> StepInfo:
    """The step that this code is part of, with its idempotency key. Raises MisplacedCall outside one."""
    info = STEP.get()
    if info is None:
        raise MisplacedCall("current_step() has a meaning only inside a step of a running workflow")
    return info


async def _read_clock() -> datetime:
    attempt = ATTEMPT.get()
    return datetime.now(UTC) if attempt is None else datetime.fromtimestamp(attempt.wall(), UTC)


async def _draw_uuid() -> UUID:
    return uuid4()


_now = _make_step(_read_clock, {"name": "milepost.now"})
_uuid = _make_step(_draw_uuid, {"name": "milepost.uuid"})


async def now() -> datetime:
    """The time (UTC), as a tiny step: the same in every attempt. Use it instead of `datetime.now()`."""
    moment: datetime = await _now()
    return moment


async def uuid() -> UUID:
    """A random UUID, as a tiny step: the same in every attempt. Use it instead of `uuid4()`."""
    drawn: UUID = await _uuid()
    return drawn
