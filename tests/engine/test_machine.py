"""A Hypothesis state machine drives the engine against a model of what a user may expect.

The model knows, per call, which question is open and what was accepted. After each rule the real runs
must stand as the model says; at the end the stored history is checked by the rules that always hold
(docs/concepts.md, "What must hold, always").
"""

from __future__ import annotations

import asyncio
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.bench import ALICE, BOB, FAST, Talk, Workbench
from fakes import FakeClock
from milepost import step
from milepost.core.outside import Verdict
from milepost.core.records import Delivery, EntryKind, EventKind, QuestionState, Reply
from milepost.core.states import FINAL, RunState

SCHEMA = {"type": "object", "properties": {"v": {"type": "integer"}}, "required": ["v"]}
NAMES = st.sampled_from(["x", "y", "z"])
WITHIN = FAST.answer_within


@dataclass
class Trip:
    """What the model knows of one run."""

    run_id: str
    answers: list[int] = field(default_factory=list)
    ended: RunState | None = None
    confirmed: bool = False


class Engine(RuleBasedStateMachine):
    trips = Bundle("trips")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        self.clock = FakeClock()
        self.bench = Workbench(Path(self.folder.name) / "m.db", clock=self.clock)
        self.effects: list[tuple[str, str]] = []
        self.current: dict[str, Trip] = {}
        self.all: list[Trip] = []

    def do(self, work: Any) -> Any:
        return self.loop.run_until_complete(asyncio.wait_for(work, 20))

    @initialize()
    def begin(self) -> None:
        effects = self.effects

        @step
        async def mark(what: str, name: str) -> str:
            effects.append((what, name))
            return what

        @self.bench.tool(same_run="always")
        async def trip(talk: Talk, name: str) -> list[int]:
            first = await talk.elicit("A?", SCHEMA)
            await mark("one", name)
            second = await talk.elicit("B?", SCHEMA)
            await mark("two", name)
            return [first["v"], second["v"]]

        self.do(self.bench.start())

    # --- what may happen ------------------------------------------------------------------------

    @rule(name=NAMES)
    def call(self, name: str) -> None:
        """A call starts a run, or leads to the one of the same call that isn't confirmed yet."""
        stream = self.do(self.bench.call("trip", name=name))
        known = self.current.get(name)
        if known is not None and not known.confirmed:
            assert stream.run_id == known.run_id
            assert stream.attached
        else:
            assert all(stream.run_id != trip.run_id for trip in self.all)
            self.current[name] = Trip(stream.run_id)
            self.all.append(self.current[name])
        self.do(self.bench.runs.detach(stream))

    @rule(name=NAMES, value=st.integers(0, 9))
    def answer(self, name: str, value: int) -> None:
        trip = self.open_trip(name)
        if trip is not None:
            assert self.reply(trip, len(trip.answers) + 1, {"v": value}) is Verdict.ACCEPTED
            trip.answers.append(value)
            trip.ended = RunState.COMPLETED if len(trip.answers) == 2 else None

    @rule(name=NAMES)
    def answer_wrongly(self, name: str) -> None:
        trip = self.open_trip(name)
        if trip is not None:
            assert self.reply(trip, len(trip.answers) + 1, {"v": "many"}) is Verdict.INVALID

    @rule(name=NAMES, changed=st.booleans())
    def answer_late(self, name: str, changed: bool) -> None:
        """The same answer again is acknowledged again; another one comes too late."""
        trip = self.current.get(name)
        if trip is not None and trip.answers:
            verdict = self.reply(trip, 1, {"v": trip.answers[0] + int(changed)})
            assert verdict is (Verdict.CLOSED if changed else Verdict.REPEATED)

    @rule(name=NAMES)
    def answer_for_somebody_else(self, name: str) -> None:
        trip = self.open_trip(name)
        if trip is not None:
            assert self.reply(trip, len(trip.answers) + 1, {"v": 1}, by=BOB) is Verdict.UNKNOWN

    @rule(name=NAMES)
    def cancel(self, name: str) -> None:
        trip = self.open_trip(name)
        if trip is not None:
            self.do(self.bench.runs.cancel(trip.run_id, reason="client"))
            trip.ended = RunState.CANCELLED

    @rule(name=NAMES)
    def confirm(self, name: str) -> None:
        """The client has surely got its result: its next call is a new wish."""
        trip = self.current.get(name)
        if trip is not None and trip.ended is not None and not trip.confirmed:
            stream = self.do(self.bench.call("trip", name=name))
            self.do(self.bench.runs.detach(stream, delivery=Delivery.CONFIRMED))
            trip.confirmed = True

    @rule()
    def kill(self) -> None:
        process = next(process for process in self.bench.processes if process.alive)
        self.do(process.kill())
        self.do(self.bench.start())

    @precondition(lambda self: any(trip.ended is None for trip in self.all))
    @rule()
    def wait_too_long(self) -> None:
        """Nobody answers: every open question expires, and with it its run."""
        self.clock.advance(WITHIN * 1.5)
        for trip in self.all:
            trip.ended = trip.ended or RunState.EXPIRED
        self.do(self.sweep())

    async def sweep(self) -> None:
        await self.bench.runs.store.sweep(limit=100)  # the scheduler's own look may be under way since before
        self.bench.runs.backend.wake("")

    @rule(seconds=st.sampled_from([-3600.0, 3600.0]))
    def set_the_wall_clock(self, seconds: float) -> None:
        self.clock.set_wall_back(seconds)

    # --- what must be so ------------------------------------------------------------------------

    @invariant()
    def the_runs_stand_as_the_model_says(self) -> None:
        for trip in self.all:
            expected = trip.ended or RunState.WAITING
            self.do(self.bench.state(trip.run_id, expected))
            if trip.ended is None:
                (question,) = self.do(self.bench.runs.open_questions(trip.run_id))
                assert question.params["message"] == ("A?", "B?")[len(trip.answers)]
            elif trip.ended is RunState.COMPLETED:
                assert self.do(self.bench.result(trip.run_id)) == trip.answers

    def teardown(self) -> None:
        for trip in self.all:
            self.check_history(trip)
        assert len(self.effects) == sum(min(len(trip.answers), 2) for trip in self.all), "an effect was lost or doubled"
        self.do(self.bench.close())
        self.loop.close()
        self.folder.cleanup()

    def check_history(self, trip: Trip) -> None:
        loaded = self.do(self.bench.journal(trip.run_id))
        assert [entry.n for entry in loaded.entries] == list(range(1, len(loaded.entries) + 1))
        accepted = [q.reply.result["content"]["v"] for q in loaded.questions if q.state is QuestionState.ANSWERED]
        assert accepted == trip.answers, "an acknowledged answer was lost, or a question was asked again"
        done = [entry for entry in loaded.entries if entry.kind is EntryKind.DONE]
        assert len(done) == min(len(trip.answers), 2)
        events = self.do(self.bench.events(trip.run_id))
        assert [event.n for event in events] == list(range(1, len(events) + 1))
        results = [event for event in events if event.kind is EventKind.RESULT]
        assert len(results) == (1 if loaded.run.state in FINAL else 0)

    # --- small things ---------------------------------------------------------------------------

    def open_trip(self, name: str) -> Trip | None:
        trip = self.current.get(name)
        return trip if trip is not None and trip.ended is None else None

    def reply(self, trip: Trip, question: int, content: dict[str, Any], by: Any = ALICE) -> Verdict:
        reply = {question: Reply({"action": "accept", "content": content})}
        verdict: Verdict = self.do(self.bench.runs.answer(trip.run_id, reply, by=by, via="test"))[question].verdict
        return verdict


Engine.TestCase.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
TestEngineAgainstItsModel = Engine.TestCase
