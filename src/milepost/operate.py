"""What an operator does with runs, straight on the store: no server is needed, and a running one notices.

Used by `milepost runs`; screens may use the same functions. Everything returns values; showing them is elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from milepost.core.attempts import Loaded
from milepost.core.errors import ConfigurationError, InvalidAnswer, QuestionClosed, UnknownRun
from milepost.core.outside import Action, ActionKind, Find, Verdict
from milepost.core.records import OPERATOR, Question, QuestionState, Replica, Reply, Run
from milepost.core.replies import ELICIT, fault
from milepost.core.states import FINAL, UNFINISHED, RunState
from milepost.core.versions import EVERY_TOOL, held_up
from milepost.core.versions import Given as GivenTo
from milepost.seams import Store
from milepost.settings import Settings
from milepost.store.url import open_store

OPERATOR_WAY = "operator"


@asynccontextmanager
async def at_store(settings: Settings) -> AsyncIterator[Store]:
    """The opened store of the settings. Raises ConfigurationError if there is none yet: reading makes no store."""
    store = open_store(settings.store.url, sqlite=settings.sqlite(), postgres=settings.postgresql())
    path = getattr(store, "path", None)
    if path is not None and not path.exists():
        raise ConfigurationError(f"there is no store at {path}: name it with --store, or start a server first")
    await store.open()
    try:
        yield store
    finally:
        await store.aclose()


def states_named(names: Sequence[str]) -> frozenset[RunState] | None:
    """States by name; `open` stands for all unfinished ones, `final` for the others. None: all."""
    groups = {"open": UNFINISHED, "final": FINAL}
    chosen: set[RunState] = set()
    for name in names:
        if name not in groups and name not in set(RunState):
            known = ", ".join([*groups, *RunState])
            raise ConfigurationError(f"there is no state {name!r}: use one of {known}")
        chosen |= groups.get(name) or {RunState(name)}
    return frozenset(chosen) or None


async def listed(store: Store, *, states: Sequence[str] = (), tool: str | None = None, limit: int = 50) -> list[Run]:
    """Runs, newest first."""
    return list(await store.find(Find(states=states_named(states), tool=tool, limit=limit)))


async def found(store: Store, run_id: str) -> Loaded:
    """The run with this id, or the only one whose id begins or ends so. Raises UnknownRun."""
    loaded = await store.load(run_id)
    if loaded is not None:
        return loaded
    runs = await store.find(Find(limit=1000))
    near = [run.id for run in runs if run.id.endswith(run_id) or run.id.startswith(run_id)]
    if len(near) > 1:
        raise UnknownRun(f"{len(near)} runs are named like {run_id!r}: give more of the id")
    loaded = await store.load(near[0]) if near else None
    if loaded is None:
        raise UnknownRun(f"there is no run {run_id!r} (`milepost runs list` shows them)")
    return loaded


async def waiting_for(store: Store, runs: Sequence[Run]) -> dict[str, str]:
    """Of these runs, by id, the ones that nobody goes on with although it is a replica's turn; and why, in words."""
    replicas = await store.replicas()
    reasons = {run.id: held_up(run, replicas) for run in runs}
    return {run_id: why for run_id, why in reasons.items() if why is not None}


@dataclass(frozen=True, slots=True)
class Given:
    """An answer as typed: `action` and `fields` for a form, `result` for anything else."""

    action: str = "accept"
    fields: Mapping[str, str] | None = None
    result: Mapping[str, Any] | None = None


async def answer(store: Store, run_id: str, number: int | None, given: Given) -> tuple[Question, Verdict]:
    """Answer one question of a run (the open one, where there is one only).

    Raises UnknownRun, QuestionClosed, InvalidAnswer; nothing was recorded then.
    """
    loaded = await found(store, run_id)
    question = _question(loaded, number)
    reply = Reply(result=_result(question, given))
    reason = fault(question, reply)
    if reason is not None:
        raise InvalidAnswer(f"question {question.id} was not answered: {reason}")
    verdicts = await store.answer(loaded.run.id, {question.id: reply}, by=OPERATOR, via=OPERATOR_WAY)
    verdict = verdicts[question.id]
    if verdict not in (Verdict.ACCEPTED, Verdict.REPEATED):
        raise QuestionClosed(f"question {question.id} is closed: it was answered, expired, or is no longer asked")
    return question, verdict


def _question(loaded: Loaded, number: int | None) -> Question:
    waiting = [q for q in loaded.questions if q.state is QuestionState.OPEN]
    if number is not None:
        chosen = [q for q in loaded.questions if q.id == number]
        if not chosen:
            raise QuestionClosed(f"run {loaded.run.id} has no question {number}")
        return chosen[0]
    if len(waiting) != 1:
        ids = ", ".join(str(q.id) for q in waiting)
        what = f"has {len(waiting)} open questions ({ids}): say which" if waiting else "has no open question"
        raise QuestionClosed(f"run {loaded.run.id} {what}")
    return waiting[0]


def _result(question: Question, given: Given) -> Mapping[str, Any]:
    if given.result is not None:
        return given.result
    if question.method != ELICIT:
        raise InvalidAnswer(f"question {question.id} is {question.method}: give its result as --json")
    if given.action != "accept":
        return {"action": given.action}
    if "requestedSchema" not in question.params:
        return {"action": "accept"}
    properties = question.params["requestedSchema"].get("properties", {})
    return {"action": "accept", "content": {k: _typed(v, properties.get(k)) for k, v in (given.fields or {}).items()}}


def _typed(text: str, schema: Mapping[str, Any] | None) -> Any:
    """What was typed, as the JSON type that the question's schema wants; else the text, which the schema refuses."""
    kind = (schema or {}).get("type")
    if kind in {"integer", "number", "boolean", "array"}:
        try:
            return json.loads(text.lower() if kind == "boolean" else text)
        except ValueError:
            return [part.strip() for part in text.split(",")] if kind == "array" else text
    return text


async def cancel(store: Store, run_id: str) -> Run:
    """Cancel: one last attempt may clean up. Raises UnknownRun."""
    run = (await found(store, run_id)).run
    done = await store.steer(run.id, Action(ActionKind.CANCEL, reason="operator"))
    return done or run


async def retry(store: Store, run_id: str, *, accept_drift: bool = False) -> tuple[Run, bool]:
    """The way out of `stuck` and `parked`; whether it was one of these. Raises UnknownRun."""
    run = (await found(store, run_id)).run
    fits = run.state in (RunState.STUCK, RunState.PARKED)
    done = await store.steer(run.id, Action(ActionKind.RETRY, accept_drift=accept_drift))
    return done or run, fits


async def releases(store: Store) -> tuple[GivenTo, Sequence[Replica]]:
    """Which release new runs are given to, and the replicas that there are."""
    return await store.given(), await store.replicas()


async def give(store: Store, tool: str, shares: Mapping[str, float]) -> list[str]:
    """Give new runs of `tool` to these releases, none: to nobody in particular. Returns those without a replica.

    Raises ConfigurationError.
    """
    for release, weight in shares.items():
        if not release or not (0 < weight < float("inf")):
            raise ConfigurationError(f"{release}={weight:g}: a release has a name, and a weight above 0")
    await store.give(tool, shares)
    served = {one.release for one in await store.replicas() if one.alive and _serves(one, tool)}
    return [release for release in shares if release not in served]


def _serves(replica: Replica, tool: str) -> bool:
    return tool == EVERY_TOOL or any(name == tool for name, _ in replica.accepts)
