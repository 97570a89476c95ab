"""Replay: what this attempt may take from the journal, and when a miss is not a licence to run.

A call is addressed by (name, digest, key, occurrence). A call that misses while recorded calls of
the same name have not been reached yet is held back: perhaps another branch will reach them, perhaps
the code has changed. The attempt decides which when it comes to rest (HAZARDS A1).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from milepost.core.errors import AmbiguousCall
from milepost.core.records import Entry, EntryKind, Question, QuestionState


class Address(NamedTuple):
    """Where a step or question stands in the journal."""

    name: str
    digest: str
    key: str
    occurrence: int

    def __str__(self) -> str:
        nth = f", call {self.occurrence}" if self.occurrence > 1 else ""
        key = f", key {self.key!r}" if self.key else ""
        return f"{self.name!r} (arguments {self.digest[:8]}{key}{nth})"


@dataclass(slots=True)
class StepRecord:
    """What the journal knows of one step call."""

    begun: bool = False
    retries: list[Entry] = field(default_factory=list)
    final: Entry | None = None
    """The DONE or FAILED entry."""


@dataclass(slots=True)
class _Counter:
    occurrence: int
    branch: Hashable


class Replay:
    """One attempt's walk along its run's journal."""

    def __init__(self, entries: Iterable[Entry], questions: Iterable[Question]) -> None:
        self._steps: dict[Address, StepRecord] = {}
        self._stages: dict[tuple[str, int], list[Entry]] = {}
        self.notes: dict[str, int] = {}
        self._unreached: dict[str, set[Address]] = {}
        for entry in entries:
            self._take(entry)
        self._questions: dict[Address, Question] = {}
        for question in questions:
            self._take_question(question)
        self._counters: dict[tuple[str, str, str], _Counter] = {}
        self._entered: dict[str, int] = {}

    def _take(self, entry: Entry) -> None:
        if entry.kind is EntryKind.NOTE:
            self.notes[entry.name] = self.notes.get(entry.name, 0) + 1
        elif entry.kind in (EntryKind.STAGE_BEGIN, EntryKind.STAGE_END):
            self._stages.setdefault((entry.name, entry.occurrence), []).append(entry)
        else:
            self._take_step(entry)

    def _take_step(self, entry: Entry) -> None:
        address = Address(entry.name, entry.digest, entry.key, entry.occurrence)
        record = self._steps.setdefault(address, StepRecord())
        self._unreached.setdefault(entry.name, set()).add(address)
        if entry.kind is EntryKind.BEGUN:
            record.begun = True
        elif entry.kind is EntryKind.RETRY:
            record.retries.append(entry)
        else:
            record.final = entry

    def _take_question(self, question: Question) -> None:
        if question.state is QuestionState.WITHDRAWN:
            return
        address = Address(question.method, question.digest, question.key, question.occurrence)
        self._questions[address] = question
        if question.state is not QuestionState.OPEN:
            self._unreached.setdefault(question.method, set()).add(address)

    def restart(self) -> None:
        """The function is entered (again): occurrences count from one anew."""
        self._counters.clear()
        self._entered.clear()

    def address(self, name: str, digest: str, key: str, branch: Hashable) -> Address:
        """Address the next call of this kind. Raises AmbiguousCall where two branches make the same call."""
        counter = self._counters.get((name, digest, key))
        if counter is None:
            self._counters[name, digest, key] = _Counter(1, branch)
            return Address(name, digest, key, 1)
        if counter.branch != branch:
            raise AmbiguousCall(
                f"{name!r} is called with the same arguments from two concurrent branches, so their results could "
                'be swapped after a restart: give each branch its own key, as in `with milepost.key("ann"): ...`'
            )
        counter.occurrence += 1
        return Address(name, digest, key, counter.occurrence)

    def reach_step(self, address: Address) -> StepRecord | None:
        """What is recorded at this address; from now on it counts as reached."""
        self._reached(address)
        return self._steps.get(address)

    def reach_question(self, address: Address) -> Question | None:
        """The question recorded at this address (open, answered or expired), or None."""
        self._reached(address)
        return self._questions.get(address)

    def _reached(self, address: Address) -> None:
        waiting = self._unreached.get(address.name)
        if waiting is not None:
            waiting.discard(address)

    def held_back_by(self, name: str) -> Address | None:
        """A recorded call of this name that this attempt hasn't reached, or None: then a miss may run."""
        waiting = self._unreached.get(name)
        return min(waiting) if waiting else None

    def enter_stage(self, name: str) -> int:
        """Which entering of the stage this is, counted from 1."""
        self._entered[name] = self._entered.get(name, 0) + 1
        return self._entered[name]

    def stage_marks(self, name: str, occurrence: int) -> list[Entry]:
        """The marks recorded for the `occurrence`-th entering of a stage, in order."""
        return self._stages.get((name, occurrence), [])
