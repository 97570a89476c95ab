"""What must hold over any history (DESIGN section 13), as small pure functions: histories in, violations out.

Each violation is one sentence that names the run or conversation. The numbers are the rules'.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from drills.history import FINAL, Disruption, Frame, Reading, StoredEvent, StoredQuestion, StoredRun, Told
from drills.ledger import Effect

SLACK = 0.005
"""Seconds by which two clocks' readings of one moment may differ: the ledger's and the store's, on one machine."""
COMMIT = 1.0
"""Seconds within which the end of an effect is surely recorded, or its process is at fault."""


@dataclass(frozen=True, slots=True)
class History:
    """All witnesses together."""

    runs: Sequence[StoredRun] = ()
    effects: Sequence[Effect] = ()
    told: Sequence[Told] = ()
    disruptions: Sequence[Disruption] = ()
    steps: Sequence[str] = field(default=())
    """The steps that a finished run has recorded, once each."""


def violations(history: History) -> list[str]:
    """Everything that is wrong with a history; empty is what we promise."""
    return [line for check in CHECKS for line in check(history)]


# --- 1: one final state --------------------------------------------------------------------------


def finished(history: History) -> Iterator[str]:
    """Every run is finished, and so is every conversation, with the result that its run has stored."""
    for run in history.runs:
        if run.state not in FINAL and not run.ghost:
            yield f"run {run.id} of {run.conversation} is not finished: {run.state} ({run.reason})"
        elif run.state in FINAL and run.merged_into is None and run.state != "completed":
            yield f"run {run.id} of {run.conversation} is {run.state}: {run.reason}"


def one_final_state(history: History) -> Iterator[str]:
    """1: a run has at most one final state, and says nothing after its result."""
    for run in history.runs:
        results = [event.n for event in run.events if event.kind in ("result", "merged")]
        if len(results) > 1:
            yield f"1: run {run.id} has {len(results)} results"
        if results and results[-1] != len(run.events):
            yield f"1: run {run.id} goes on speaking after its result"
        if (run.state in FINAL) != bool(results):
            yield f"1: run {run.id} is {run.state}, and has {'a' if results else 'no'} result event"
        finals = [event.body["state"] for event in run.events if event.kind == "state" and event.body["state"] in FINAL]
        if len(finals) > 1:
            yield f"1: run {run.id} was {' and '.join(finals)}"


def one_run_each(history: History) -> Iterator[str]:
    """A conversation is one run: a call that came again after a break began no second one."""
    runs = Counter(run.conversation for run in _own_runs(history))
    for told in history.told:
        if runs[told.name] != 1:
            yield f"4: conversation {told.name} has {runs[told.name]} runs"


def results_told(history: History) -> Iterator[str]:
    """Every conversation got its result: the one that is stored."""
    stored = {run.conversation: run for run in _own_runs(history)}
    for told in history.told:
        run = stored.get(told.name)
        if told.result is None:
            yield f"conversation {told.name} ({told.era}) has no result: {told.error}"
        elif run is not None and told.result.get("structuredContent") != _receipt(run):
            yield f"6: conversation {told.name} was told another result than is stored"


def _own_runs(history: History) -> Iterator[StoredRun]:
    """The runs that did something: not those that were merged, or that only ask whether to be."""
    return (run for run in history.runs if run.merged_into is None and not run.ghost)


def _receipt(run: StoredRun) -> Any:
    return ((run.outcome or {}).get("result") or {}).get("structuredContent")


def complaints(history: History) -> Iterator[str]:
    """What a client met that no correct client should."""
    for told in history.told:
        for complaint in told.complaints:
            yield f"conversation {told.name} ({told.era}): {complaint}"


# --- 2: the journal ------------------------------------------------------------------------------


def gapless(history: History) -> Iterator[str]:
    """2: journal, questions and events are numbered from 1 without a gap, and the run's counters agree."""
    for run in history.runs:
        for what, numbers in (
            ("entries", [entry.n for entry in run.entries]),
            ("events", [event.n for event in run.events]),
            ("questions", [question.id for question in run.questions]),
        ):
            if numbers != list(range(1, len(numbers) + 1)):
                yield f"2: the {what} of run {run.id} are numbered {numbers}"
        if (run.journal_seq, run.event_seq) != (len(run.entries), len(run.events)):
            yield f"2: the counters of run {run.id} disagree with its rows"


def one_answer(history: History) -> Iterator[str]:
    """2: a question has at most one answer, and is closed at most once."""
    for run in history.runs:
        closed = Counter(event.body["question"] for event in run.events if event.kind == "closed")
        for question in run.questions:
            if closed[question.id] > 1:
                yield f"2: question {question.id} of run {run.id} was closed {closed[question.id]} times"
            if (question.state == "answered") != (question.reply is not None):
                yield f"2: question {question.id} of run {run.id} is {question.state} with reply {question.reply}"


def one_record(history: History) -> Iterator[str]:
    """2: a call of a step has at most one final entry."""
    for run in history.runs:
        finals = Counter(entry.address for entry in run.entries if entry.kind in ("done", "failed"))
        for address, times in finals.items():
            if times > 1:
                yield f"2: run {run.id} has recorded {address[0]} {times} times"


# --- 3: what was acknowledged --------------------------------------------------------------------


def acknowledged_kept(history: History) -> Iterator[str]:
    """3: every acknowledged answer is in the journal, as it was given."""
    answers: dict[str, dict[str, list[Any]]] = defaultdict(lambda: defaultdict(list))
    for run in history.runs:
        for question in run.questions:
            if question.state == "answered" and question.reply is not None:
                answers[run.conversation][question.text].append(question.reply.get("result"))
    for told in history.told:
        for ack in told.acks:
            if not any(_holds(stored, ack.reply) for stored in answers[told.name][ack.text]):
                yield f"3: conversation {told.name}: the acknowledged answer to {ack.text!r} is not stored"


def _holds(stored: Any, given: Mapping[str, Any]) -> bool:
    """Whether the stored answer is the given one (a server may add defaults, never change or lose a value)."""
    return isinstance(stored, Mapping) and all(stored.get(name) == value for name, value in given.items())


# --- 4: no recorded step runs again --------------------------------------------------------------


def recorded_never_again(history: History) -> Iterator[str]:
    """4: once a step is recorded, no execution of the same author's call begins."""
    recorded = {
        entry.value: entry.at for run in history.runs for entry in run.entries if entry.kind == "done" and entry.value
    }
    for call, effects in by_call(history).items():
        times = [recorded[text] for effect in effects if (text := json.dumps(effect.token)) in recorded]
        if not times:
            continue
        late = [effect for effect in effects if effect.begin > min(times) + SLACK]
        if late:
            yield f"4: {call} was recorded, and ran {len(late)} more times (first by process {late[0].pid})"


def doubled_only_in_flight(history: History) -> Iterator[str]:
    """4: what ran twice was cut by a kill, or stopped, before it was recorded: every execution but one."""
    for call, effects in by_call(history).items():
        whole = [effect for effect in effects if not disrupted(effect, history)]
        if len(whole) > 1:
            yield f"4: {call} ran {len(effects)} times, {len(whole)} of them without any disruption"


def one_in_flight(history: History) -> Iterator[str]:
    """4: a stop or a kill lets at most the one step of a run that was in flight be there twice."""
    twice: dict[tuple[Disruption, str], set[str]] = defaultdict(set)
    for call, effects in by_call(history).items():
        for effect in effects if len(effects) > 1 else ():
            if (cause := cause_of(effect, history)) is not None:
                twice[cause, effect.run].add(call)
    for (cause, run), calls in twice.items():
        if len(calls) > 1:
            yield f"4: one disruption of process {cause.pid} let {len(calls)} calls of run {run} run twice: {calls}"


def one_key(history: History) -> Iterator[str]:
    """4: all executions of one call give the outside the same idempotency key, and no other call gives it."""
    calls: dict[str, set[str]] = defaultdict(set)
    for call, effects in by_call(history).items():
        keys = {effect.key for effect in effects}
        if len(keys) > 1:
            yield f"4: {call} gave the outside {len(keys)} idempotency keys"
        for key in keys:
            calls[key].add(call)
    for key, sharing in calls.items():
        if len(sharing) > 1:
            yield f"4: one idempotency key {key[:12]}... for {sorted(sharing)}"


def one_call_per_step(history: History) -> Iterator[str]:
    """4: no step was called with two sets of arguments: an answer or a value would have changed between attempts."""
    calls: dict[tuple[str, str], set[str]] = defaultdict(set)
    for effect in history.effects:
        calls[effect.conversation, effect.step].add(effect.call)
    for (conversation, step), different in calls.items():
        if len(different) > 1 and step in history.steps:
            yield f"4: {step} of {conversation} was called with {len(different)} sets of arguments"


def recorded_once_in_all(history: History) -> Iterator[str]:
    """3: a completed run has recorded each of its steps, with a value that the outside really gave."""
    given = {json.dumps(effect.token): effect.step for effect in history.effects}
    for run in history.runs:
        if run.state != "completed" or run.merged_into is not None or run.tool != "book_room":
            continue
        recorded = sorted(given.get(entry.value or "", "nothing") for entry in run.entries if entry.kind == "done")
        if recorded != sorted(history.steps):
            yield f"3: run {run.id} has recorded {recorded}"


def disrupted(effect: Effect, history: History) -> bool:
    """Whether its process was killed or stopped while it ran, or before what it gave back was recorded."""
    return cause_of(effect, history) is not None


def cause_of(effect: Effect, history: History) -> Disruption | None:
    """The first disruption that fell between its beginning and its record (or when that was due)."""
    recorded_at = _recorded_at(effect, history)
    if recorded_at is None:
        recorded_at = effect.end + COMMIT if effect.end is not None else float("inf")
    within = (
        one
        for one in history.disruptions
        if one.pid == effect.pid
        and one.at <= recorded_at
        and effect.begin <= (one.at if one.until is None else one.until)
    )
    return min(within, key=lambda one: one.at, default=None)


def _recorded_at(effect: Effect, history: History) -> float | None:
    text = json.dumps(effect.token)
    for run in history.runs:
        if run.id == effect.run:
            return next((entry.at for entry in run.entries if entry.kind == "done" and entry.value == text), None)
    return None


def doubled(history: History) -> int:
    """How many effects were there twice although each copy but one was disrupted: allowed, and counted."""
    return sum(
        len(effects) - 1
        for effects in by_call(history).values()
        if len(effects) > 1 and sum(not disrupted(effect, history) for effect in effects) <= 1
    )


def doubled_otherwise(history: History) -> int:
    """How many effects were there again for no reason: must be 0."""
    whole = (sum(not disrupted(effect, history) for effect in effects) for effects in by_call(history).values())
    return sum(max(0, times - 1) for times in whole)


def by_call(history: History) -> Mapping[str, list[Effect]]:
    made: dict[str, list[Effect]] = defaultdict(list)
    for effect in history.effects:
        made[effect.call].append(effect)
    return made


# --- 5: no accepted answer is asked again --------------------------------------------------------


def not_asked_again(history: History) -> Iterator[str]:
    """5: what was answered is not asked under another question id, in any run of the conversation."""
    for run in history.runs:
        answered: dict[tuple[str, str], int] = {}
        for question in run.questions:
            asked = (question.method, question.text)
            if asked in answered:
                yield f"5: run {run.id} asks {question.text!r} again as {question.id}; {answered[asked]} was answered"
            if question.state == "answered":
                answered[asked] = question.id


def not_sent_after_closing(history: History) -> Iterator[str]:
    """5: no question is put to anybody after the event that says that it is closed."""
    for run in history.runs:
        closed: set[int] = set()
        for event in run.events:
            if event.kind == "closed":
                closed.add(event.body["question"])
            elif event.kind == "question" and event.body["question"] in closed:
                yield f"5: run {run.id} asks question {event.body['question']} after it was closed"


# --- 6: what clients read ------------------------------------------------------------------------


def read_in_order(history: History) -> Iterator[str]:
    """6: on one connection, event numbers only rise, and begin after the point that was asked for."""
    for told, reading in _readings(history):
        numbers = [reading.after, *(frame.n for frame in reading.frames)]
        if any(a >= b for a, b in pairwise(numbers)):
            yield f"6: conversation {told.name} read events {numbers} on stream {reading.stream}"


def read_as_stored(history: History) -> Iterator[str]:
    """6: each message that was read is what is stored under its number."""
    for told, reading, events in _followed(history):
        for frame in reading.frames:
            event = events.get(frame.n)
            if event is None:
                yield f"6: conversation {told.name} read event {frame.n} of {reading.stream}, which is not stored"
            elif (why := _differs(frame, event[0], event[1])) is not None:
                yield f"6: conversation {told.name} read {why} as event {frame.n} of {reading.stream}"


def read_without_gap(history: History) -> Iterator[str]:
    """6: between the first and the last event read, nothing is missing that a stream always shows."""
    for told, reading, events in _followed(history):
        if not reading.frames:
            continue
        read = {frame.n for frame in reading.frames}
        for n in range(reading.after + 1, reading.frames[-1].n):
            if n not in read and n in events and events[n][1].kind in ("notify", "result"):
                yield f"6: conversation {told.name} missed event {n} ({events[n][1].kind}) of {reading.stream}"


def _differs(frame: Frame, run: StoredRun, event: StoredEvent) -> str | None:
    """What a frame is that the stored event isn't; None where they agree."""
    message, body = frame.message, event.body
    match event.kind:
        case "question":
            question = next((one for one in run.questions if one.id == body["question"]), None)
            same = question is not None and _asks(message, run, question)
            return None if same else f"another question: {message}"
        case "notify":
            return None if message.get("method") == body["method"] else f"another notification: {message}"
        case "result":
            told = (message.get("result") or {}).get("structuredContent")
            return None if told == _receipt(run) else f"another result: {message}"
        case "stage" | "progress":
            same = message.get("method") == "notifications/progress"
            return None if same and message["params"]["progress"] == body["progress"] else f"other progress: {message}"
        case "closed" | "state" | "merged":
            cancelled = message.get("method") == "notifications/cancelled"
            told_by_hand = "result" in message
            return None if cancelled or told_by_hand else f"something else: {message}"
    return f"an event of no known kind {event.kind}"


_OF_CALL = "milepost/request"
"""Which of its calls asks a client: each stream's own, and not stored."""


def _asks(message: Mapping[str, Any], run: StoredRun, question: StoredQuestion) -> bool:
    """Whether a client was asked just what is stored, by the names that this question has wherever it is sent."""
    names = {"milepost/run_id": run.id, "milepost/question": f"q{question.id}"}
    asked = {**question.params, "_meta": {**(question.params.get("_meta") or {}), **names}}
    params = message.get("params") or {}
    meta = {name: value for name, value in params.get("_meta", {}).items() if name != _OF_CALL}
    return bool(message.get("method") == question.method and {**params, "_meta": meta} == asked)


def _readings(history: History) -> Iterator[tuple[Told, Reading]]:
    for told in history.told:
        for reading in told.readings:
            yield told, reading


def _followed(
    history: History,
) -> Iterator[tuple[Told, Reading, Mapping[int, tuple[StoredRun, StoredEvent]]]]:
    """Each reading with the events of its stream, by number: a merged run's events count first."""
    runs = {run.id: run for run in history.runs}
    streams = {stream: run for run in history.runs for stream in run.streams}
    for told, reading in _readings(history):
        run: StoredRun | None = streams.get(reading.stream)
        events: dict[int, tuple[StoredRun, StoredEvent]] = {}
        offset = 0
        while run is not None:
            events |= {offset + event.n: (run, event) for event in run.events}
            offset += run.event_seq
            run = runs.get(run.merged_into) if run.merged_into is not None else None
        yield told, reading, events


CHECKS = (
    finished,
    one_final_state,
    one_run_each,
    results_told,
    complaints,
    gapless,
    one_answer,
    one_record,
    acknowledged_kept,
    recorded_never_again,
    doubled_only_in_flight,
    one_in_flight,
    one_key,
    one_call_per_step,
    recorded_once_in_all,
    not_asked_again,
    not_sent_after_closing,
    read_in_order,
    read_as_stored,
    read_without_gap,
)
