"""What `milepost.toml` says about tools: the `[tools.NAME]` tables, checked before anything starts.

[tools.plan_trip]
lane = "stateful"
replay = "safe"                      # what it does between its questions may be done again
steps = ["agency.api:hold_seat"]     # functions to treat as steps
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from milepost.core.durations import seconds
from milepost.core.errors import ConfigurationError
from milepost.core.spec import SameRun, WorkflowSpec


class _Table(BaseModel):
    """One `[tools.NAME]` table, as written."""

    model_config = ConfigDict(extra="forbid", strict=True)

    lane: Literal["stateless", "stateful"]
    replay: Literal["safe", "unsafe"] = "unsafe"
    steps: list[str] = Field(default_factory=list)
    version: int = Field(default=1, ge=1)
    accepts: list[int] = Field(default_factory=list)
    stages: list[str] = Field(default_factory=list)
    same_run: SameRun | None = None
    same_run_by: list[str] | None = None
    timeout: float | None = Field(default=None, gt=0)

    @field_validator("timeout", mode="before")
    @classmethod
    def _duration(cls, value: object) -> object:
        return None if value is None else seconds(value)

    @field_validator("steps")
    @classmethod
    def _references(cls, steps: list[str]) -> list[str]:
        for step in steps:
            module, colon, name = step.partition(":")
            if not (module and colon and name):
                raise ValueError(f"{step!r} is not of the form module:function")
        return steps


@dataclass(frozen=True, slots=True)
class DeclaredTool:
    """One tool as `milepost.toml` wants it. `spec` is None for `lane = "stateless"`."""

    name: str
    spec: WorkflowSpec | None
    steps: tuple[str, ...] = ()
    """`module:function` references that are wrapped as steps before the target is imported."""


_KEYS: Final = tuple(_Table.model_fields)


def declared_tools(tables: Mapping[str, Any], source: str = "milepost.toml") -> dict[str, DeclaredTool]:
    """Check all `[tools.*]` tables. Raises ConfigurationError naming the table, the key and what to write."""
    return {name: _declared(name, table, source) for name, table in tables.items()}


def _declared(name: str, table: object, source: str) -> DeclaredTool:
    if not isinstance(table, Mapping):
        raise ConfigurationError(f'{source}: tools.{name} must be a table, such as [tools.{name}] lane = "stateful"')
    try:
        read = _Table.model_validate(dict(table))
    except ValidationError as exc:
        raise ConfigurationError(f"{source}: [tools.{name}] {_first(exc)}") from None
    if read.lane == "stateless":
        return DeclaredTool(name, None, tuple(read.steps))
    spec = WorkflowSpec(
        version=read.version,
        accepts=frozenset({read.version, *read.accepts}),
        stages=tuple(read.stages),
        same_run=read.same_run,
        same_run_by=None if read.same_run_by is None else tuple(read.same_run_by),
        timeout=read.timeout,
        replay_safe=read.replay == "safe",
    )
    return DeclaredTool(name, spec, tuple(read.steps))


def _first(exc: ValidationError) -> str:
    """The first fault in plain words, with the nearest known key for a misspelt one."""
    fault = exc.errors()[0]
    key = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"has no key {key!r}{near(key, _KEYS)}. Known keys: {', '.join(_KEYS)}."
    if fault["type"] == "missing":
        return f"needs {key}."
    message = fault["msg"].removeprefix("Value error, ")
    return f"{key}: {message[0].lower()}{message[1:]} (it is {fault['input']!r})."


def near(word: str, known: Iterable[str]) -> str:
    """` (did you mean 'x'?)` where one of `known` is close to `word`, else nothing."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
