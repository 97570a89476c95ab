"""What an author or `milepost.toml` declares about a tool and a step, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

SameRun = Literal["ask", "always", "never"]


@dataclass(frozen=True, slots=True)
class WorkflowSpec:
    """One tool in the stateful lane."""

    version: int = 1
    accepts: frozenset[int] = frozenset({1})
    """Versions of runs that this code can go on with; always holds `version`."""
    stages: tuple[str, ...] = ()
    same_run: SameRun | None = None
    """What an equal call does while a run is unfinished: ask the person, always attach, never attach; None: the
    setting `engine.same_run`."""
    same_run_by: tuple[str, ...] | None = None
    """The argument names that say "the same call"; None: all of them."""
    timeout: float | None = None
    """Working seconds of the whole run; None: the setting."""
    replay_safe: bool = True
    """False: a tool made stateful by `milepost.toml` without `replay = "safe"`. It is served hot."""


@dataclass(frozen=True, slots=True)
class StepSpec:
    """One step function."""

    name: str
    """`@step(name=)`, else the function's qualified name without its module."""
    timeout: float = 60.0
    retries: int = 0
    idempotent: bool = False
    """Whether a try whose outcome is unknown may be made again (it gets the same idempotency key)."""
    backoff: float = 0.5
    """Seconds before the first retry; doubled each time, with jitter, up to 60 s."""


@dataclass(frozen=True, slots=True)
class StageSpec:
    """One `stage(...)` as entered."""

    name: str
    timeout: float | None = None
    """Working seconds; waiting for a person does not count."""
    answer_within: float | None = None
    """Seconds that a person has for each question asked in it."""


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The workflows of one server, by tool name."""

    specs: Mapping[str, WorkflowSpec] = field(default_factory=dict)

    def accepted(self) -> frozenset[tuple[str, int]]:
        """All (tool, version) pairs whose attempts this replica may run."""
        return frozenset((tool, version) for tool, spec in self.specs.items() for version in spec.accepts)
