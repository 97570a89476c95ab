"""What a tool asks its client, read from its source without running it.

This is advice for people (`milepost lanes`) and the choice between the stateless and the hot lane; nothing
that must hold rests on it. It reads the tool's function and the functions that it calls, as far as they are
its author's (the same package, or files beside it), a few levels deep. What it can't read (a method of some
object, a library) it doesn't see, and a tool that asks nevertheless is served hot from its first question on.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

Function = Callable[..., Any]

_ASKING: Final[Mapping[str, str]] = {
    "elicit": "elicitation",
    "elicit_form": "elicitation",
    "elicit_url": "elicitation by link",
    "create_message": "sampling",
    "sample": "sampling",
    "list_roots": "roots",
}
_GUARDS: Final = frozenset(
    {"wait_for", "move_on_after", "move_on_at", "fail_after", "fail_at", "timeout", "timeout_at"}
)
_UNSTEADY: Final = frozenset(
    {
        "uuid1",
        "uuid4",
        "uuid7",
        "time",
        "time_ns",
        "monotonic",
        "perf_counter",
        "now",
        "utcnow",
        "today",
        "random",
        "randint",
        "choice",
        "token_hex",
        "token_urlsafe",
        "token_bytes",
        "urandom",
    }
)
_DEPTH: Final = 5
"""Levels of calls that are read: a helper of a helper asks, hardly a deeper one."""
_MOST: Final = 200
"""Functions that are read for one tool: `milepost serve` reads them at every start."""
_VERBS: Final = "milepost.engine.verbs"
"""Where the wrappers of steps and workflows are made."""
_CALLER: Final = frozenset({"get_access_token", "get_http_headers", "get_http_request"})


@dataclass(frozen=True, slots=True)
class Stage:
    """One `stage(...)` in the source, as far as its arguments are literals."""

    name: str
    limits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """What the source of one tool says."""

    asks: tuple[str, ...] = ()
    """Kinds of questions, in the order of the source."""
    imperative: bool = False
    """Asks in the middle of its work (`ctx.elicit()`), which needs its state kept while it waits."""
    stages: tuple[Stage, ...] = ()
    hazards: tuple[str, ...] = ()
    """What would go wrong if it were replayed."""


@dataclass(slots=True)
class _Finds:
    asks: dict[str, None] = field(default_factory=dict)
    imperative: bool = False
    stages: dict[str, Stage] = field(default_factory=dict)
    hazards: dict[str, None] = field(default_factory=dict)


def read(fn: Function) -> Reading:
    """Read a tool's function and the author's helpers that it calls."""
    finds = _Finds()
    for body in _bodies(fn):
        _examine(body, finds)
    if _has_resolvers(fn):
        finds.asks["questions by Resolve"] = None
    if returns_input_required(fn):
        finds.asks["input required (hand-made)"] = None
    return Reading(tuple(finds.asks), finds.imperative, tuple(finds.stages.values()), tuple(finds.hazards))


def _bodies(fn: Function) -> Iterator[_Body]:
    """The function, then what it calls, level by level, each once."""
    first = _Body.of(fn)
    if first is None:
        return
    level, seen = [first], {first.fn}
    for _ in range(_DEPTH):
        yield from level
        called = {helper.fn: helper for body in level for helper in body.calls_of(first)}
        level = [helper for function, helper in called.items() if function not in seen]
        seen.update(called)
        if len(seen) > _MOST:
            return


def returns_input_required(fn: Function) -> bool:
    """Whether the function is annotated to return the SDK's `InputRequiredResult` (also within a union)."""
    plain = inspect.unwrap(fn)
    try:
        hint: Any = typing.get_type_hints(plain).get("return")
    except Exception:  # an unresolvable hint of another parameter must not hide this one
        hint = getattr(plain, "__annotations__", {}).get("return")
    if isinstance(hint, str):
        return "InputRequiredResult" in hint
    return any(getattr(part, "__name__", "") == "InputRequiredResult" for part in _parts(hint))


def is_async(fn: Function) -> bool:
    """Whether calling it gives a coroutine (callable objects and partials too)."""
    plain = inspect.unwrap(fn)
    return inspect.iscoroutinefunction(plain) or inspect.iscoroutinefunction(getattr(plain, "__call__", None))  # noqa: B004


def _parts(hint: Any) -> Iterator[Any]:
    origin = typing.get_origin(hint)
    if origin is typing.Union or origin is types.UnionType or origin is typing.Annotated:
        for part in typing.get_args(hint):
            yield from _parts(part)
    else:
        yield hint


def _has_resolvers(fn: Function) -> bool:
    """Parameters of the form `Annotated[T, Resolve(...)]`: the SDK asks for them before the tool runs."""
    try:
        hints = typing.get_type_hints(inspect.unwrap(fn), include_extras=True)
    except Exception:  # reading is advice: a hint that can't be resolved is no reason to stop
        return False
    return any(
        type(mark).__name__ == "Resolve"
        for hint in hints.values()
        if typing.get_origin(hint) is typing.Annotated
        for mark in typing.get_args(hint)[1:]
    )


class _Body:
    """The source of one function, with what its names mean."""

    def __init__(self, fn: types.FunctionType, tree: ast.AsyncFunctionDef | ast.FunctionDef) -> None:
        self.fn = fn
        self.tree = tree

    @classmethod
    def of(cls, fn: Function) -> _Body | None:
        plain = inspect.unwrap(fn)
        plain = getattr(plain, "__func__", plain)
        if not isinstance(plain, types.FunctionType):
            return None
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(plain))).body[0]
        except (OSError, TypeError, SyntaxError, IndexError):
            return None
        return cls(plain, tree) if isinstance(tree, ast.AsyncFunctionDef | ast.FunctionDef) else None

    @cached_property
    def scope(self) -> Mapping[str, Any]:
        """Globals, and the variables that the function closes over."""
        cells = zip(self.fn.__code__.co_freevars, self.fn.__closure__ or (), strict=False)
        closed = {}
        for name, cell in cells:
            try:
                closed[name] = cell.cell_contents
            except ValueError:  # not yet bound
                continue
        return {**self.fn.__globals__, **closed}

    def means(self, node: ast.expr) -> Any:
        """The object that a name or a dotted name stands for, or None."""
        if isinstance(node, ast.Name):
            return self.scope.get(node.id)
        if isinstance(node, ast.Attribute):
            owner = self.means(node.value)
            return inspect.getattr_static(owner, node.attr, None) if owner is not None else None
        return None

    def calls(self) -> Iterator[ast.Call]:
        for statement in self.tree.body:
            for node in ast.walk(statement):
                if isinstance(node, ast.Call):
                    yield node

    def calls_of(self, tool: _Body) -> Iterator[_Body]:
        """What this function calls and the author of `tool` has written; steps left out, for nothing asks in them."""
        for call in self.calls():
            target = self.means(call.func)
            if callable(target) and not inspect.isclass(target) and not is_step(target):
                body = _Body.of(target)
                if body is not None and tool.is_near(body):
                    yield body

    def is_near(self, other: _Body) -> bool:
        """Whether `other` is of the same package, or in a file beside or below this one's."""
        package = self.fn.__module__.split(".")[0]
        if other.fn.__module__.split(".")[0] == package and package != "milepost":
            return True
        return Path(self.fn.__code__.co_filename).parent in Path(other.fn.__code__.co_filename).parents


def _called(call: ast.expr) -> str:
    """The last part of what is called: `ctx.session.create_message(...)` -> `create_message`."""
    func = call.func if isinstance(call, ast.Call) else call
    return func.attr if isinstance(func, ast.Attribute) else func.id if isinstance(func, ast.Name) else ""


def _asking(node: ast.AST) -> str | None:
    """The kind of question that this call asks, or None. Only methods ask: `elicit` alone is a name like any other."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        return _ASKING.get(node.func.attr)
    return None


def _examine(body: _Body, finds: _Finds) -> None:
    unsteady = _unsteady_names(body)
    for call in body.calls():
        kind = _asking(call)
        if kind is not None:
            finds.asks[kind] = None
            finds.imperative = True
            _examine_question(body, call, unsteady, finds)
        elif is_step(body.means(call.func)):
            _examine_steadiness(body, call, unsteady, f"the step {_called(call)}()", finds)
        _examine_other(body, call, finds)
    _examine_guards(body, finds)


def _examine_question(body: _Body, call: ast.Call, unsteady: set[str], finds: _Finds) -> None:
    _examine_steadiness(body, call, unsteady, f"{_called(call)}()", finds)
    for argument in (*call.args, *(k.value for k in call.keywords)):
        model = body.means(argument)
        if _validates(model):
            finds.hazards[
                f"{model.__name__} has validators that the client can't see: an answer that breaks one is recorded, "
                "and fails again on each replay; check such rules in a loop in the tool"
            ] = None


def _examine_steadiness(body: _Body, call: ast.Call, unsteady: set[str], where: str, finds: _Finds) -> None:
    for argument in (*call.args, *(k.value for k in call.keywords)):
        for node in ast.walk(argument):
            name = _unsteady_call(body, node) or (node.id if isinstance(node, ast.Name) and node.id in unsteady else "")
            if name:
                finds.hazards[
                    f"{name} in an argument of {where} differs on each replay: use milepost.now() or "
                    "milepost.uuid(), or make it in a step"
                ] = None


def _examine_other(body: _Body, call: ast.Call, finds: _Finds) -> None:
    name = _called(call)
    if name == "stage" and call.args and isinstance(call.args[0], ast.Constant):
        limits = tuple(
            f"{k.arg}={ast.literal_eval(k.value)!s}"
            for k in call.keywords
            if isinstance(k.value, ast.Constant) and k.value.value
        )
        finds.stages.setdefault(str(call.args[0].value), Stage(str(call.args[0].value), limits))
    elif name in _CALLER:
        finds.hazards[f"{name}() is empty after the first attempt: tokens and headers are never stored"] = None
    elif name in {"set_state", "delete_state"} and isinstance(call.func, ast.Attribute):
        finds.hazards[f"ctx.{name}() is done again by each attempt, in the memory of one process"] = None


def _examine_guards(body: _Body, finds: _Finds) -> None:
    for node in ast.walk(body.tree):
        if isinstance(node, ast.Call) and _called(node) in _GUARDS and any(map(_asking, ast.walk(node))):
            finds.hazards[_guard_text(_called(node))] = None
        elif isinstance(node, ast.With | ast.AsyncWith):
            guards = [_called(i.context_expr) for i in node.items if _called(i.context_expr) in _GUARDS]
            if guards and any(_asking(inner) for line in node.body for inner in ast.walk(line)):
                finds.hazards[_guard_text(guards[0])] = None
        if isinstance(node, ast.Attribute) and node.attr == "headers" and _called(node.value) in {"ctx", "context"}:
            finds.hazards["ctx.headers is empty in a workflow: tokens and headers are never stored"] = None


def _guard_text(name: str) -> str:
    return (
        f"{name}() around a question never fires, as the attempt ends while a person is asked: "
        "use stage(..., answer_within=...)"
    )


def _unsteady_call(body: _Body, node: ast.AST) -> str:
    """`uuid4()` and its like, unless it is Milepost's own (`milepost.now()`, which is a step)."""
    if not isinstance(node, ast.Call) or _called(node) not in _UNSTEADY:
        return ""
    target = body.means(node.func)
    if is_step(target) or str(getattr(target, "__module__", "")).split(".")[0] == "milepost":
        return ""
    return f"{ast.unparse(node.func)}()"


def _unsteady_names(body: _Body) -> set[str]:
    """Local variables that were given the value of an unsteady call."""
    return {
        target.id
        for node in ast.walk(body.tree)
        if isinstance(node, ast.Assign) and any(_unsteady_call(body, inner) for inner in ast.walk(node.value))
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def is_step(target: Any) -> bool:
    """Whether this is a function that `milepost.step` wrapped."""
    if getattr(target, "__milepost_step__", None) is not None:
        return True
    made_in = getattr(target, "__globals__", {}).get("__name__")
    return made_in == _VERBS and hasattr(target, "__wrapped__") and not hasattr(target, "__milepost__")


def _validates(model: Any) -> bool:
    """Whether a pydantic model checks more than its JSON Schema says."""
    decorators = getattr(model, "__pydantic_decorators__", None)
    if decorators is None or not inspect.isclass(model):
        return False
    return bool(decorators.field_validators or decorators.model_validators or decorators.validators)
