"""Versions and releases: who may run a run's attempts, and which release new runs are given to (DESIGN section 3).

A version pins attempts, never requests: any replica takes answers and serves streams. Where no replica may run
what there is to run, that is said in words, for nothing is wrong with the run: it goes on when one may. Pure.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from milepost.core.records import Lane, Replica, Run
from milepost.core.states import RunState

EVERY_TOOL = "*"
"""In what is given: every tool that is not named itself."""

_HELD_UP = frozenset({RunState.READY, RunState.CANCELLING, RunState.RUNNING})
"""States in which a run is nobody's turn but a replica's."""

Shares = Mapping[str, float]
"""Release to weight: of new runs, each release gets its weight's share."""
Given = Mapping[str, Shares]
"""Tool (or `EVERY_TOOL`) to shares."""


class Need(NamedTuple):
    """What a replica must be to run attempts of a run."""

    tool: str
    version: int
    given_to: str = ""
    """The release that it must be of; empty: any."""

    def __str__(self) -> str:
        return f"version {self.version} of {self.tool}"


def need_of(run: Run) -> Need:
    return Need(run.tool, run.version, run.given_to)


def is_met(need: Need, replicas: Iterable[Replica]) -> bool:
    """Whether a replica that lives may run it."""
    return any(
        replica.alive and (need.tool, need.version) in replica.accepts and need.given_to in ("", replica.release)
        for replica in replicas
    )


def unmet(need: Need, replicas: Sequence[Replica]) -> str | None:
    """Why nobody may run it, in words for its caller; None where somebody may."""
    if is_met(need, replicas):
        return None
    if not need.given_to:
        return f"no replica accepts {need}; it goes on when one does"
    if any(replica.alive and replica.release == need.given_to for replica in replicas):
        return f"no replica of release {need.given_to} accepts {need}; it goes on when one does"
    return f"no replica of release {need.given_to} is there, which {need.tool} was given to; it goes on when one is"


def held_up(run: Run, replicas: Sequence[Replica]) -> str | None:
    """Why the run stands although it is its turn: nobody may run it. None where it waits for something else."""
    if run.lane is Lane.HOT or run.state not in _HELD_UP:
        return None
    if run.state is RunState.RUNNING and any(one.alive and one.id == run.owner for one in replicas):
        return None
    return unmet(need_of(run), replicas)


# --- which release a new run is given to ----------------------------------------------------------


def choose(given: Given, tool: str, version: int, who: bytes, replicas: Sequence[Replica]) -> tuple[str, int]:
    """(release, version) for a new run of `tool`; release "" means any replica that accepts `version`.

    `version`: the caller's own. A release runs the tool in its own version, the highest that its replicas accept. Only
    releases with a living replica of that tool take part, so nothing is given to nobody. `who` (the caller's
    identity, as bytes) is always given the same; a larger weight takes callers from the others and moves no one else.
    """
    newest = {release: _newest(tool, release, replicas) for release in given.get(tool) or given.get(EVERY_TOOL) or ()}
    shares = (given.get(tool) or given.get(EVERY_TOOL) or {}).items()
    taking = [(release, weight) for release, weight in shares if newest[release] is not None]
    if not taking:
        return "", version
    release = max(taking, key=lambda share: _pull(share[0], share[1], who))[0]
    return release, newest[release] or version


def _newest(tool: str, release: str, replicas: Sequence[Replica]) -> int | None:
    living = [one for one in replicas if one.alive and one.release == release]
    return max((number for one in living for name, number in one.accepts if name == tool), default=None)


def _pull(release: str, weight: float, who: bytes) -> float:
    """Weighted rendezvous hashing: each release draws a number for each caller, and the highest one wins."""
    drawn = hashlib.sha256(release.encode() + b"\0" + who).digest()
    point = (int.from_bytes(drawn[:8]) + 1) / (2**64 + 2)
    return -weight / math.log(point)
