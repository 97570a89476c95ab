"""Each check catches its violation in a made-up history, and is silent on one that is right."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from drills import checks
from drills.checks import History, violations
from drills.history import Ack, Disruption, Frame, Reading, StoredEntry, StoredEvent, StoredQuestion, StoredRun, Told
from drills.ledger import Effect

RECEIPT = {"conversation": "h1-1", "tokens": {"look_up": "t1", "pay": "t2"}}
NIGHTS = {"action": "accept", "content": {"nights": 3}}
PARAMS = {"message": "h1-1: how many nights?", "requestedSchema": {}}
QUESTION = StoredQuestion(1, "elicitation/create", PARAMS, "answered", {"result": NIGHTS}, 10.5)


def entry(n: int, kind: str, name: str, at: float, token: str | None = None) -> StoredEntry:
    return StoredEntry(n, kind, name, f"digest-{name}", "", 1, at, json.dumps(token) if token else None)


def effect(step: str, token: str, begin: float, *, pid: int = 1, end: float | None = None, **more: Any) -> Effect:
    said = {"call": f'["{step}", "h1-1"]', "key": f"key-{step}", "run": "run-1", **more}
    return Effect("h1-1", step, said["call"], said["key"], said["run"], pid, begin, end, token)


RUN = StoredRun(
    id="run-1",
    tool="book_room",
    conversation="h1-1",
    state="completed",
    event_seq=6,
    journal_seq=4,
    merged_into=None,
    outcome={"result": {"structuredContent": RECEIPT}},
    entries=(
        entry(1, "begun", "look_up", 10.0),
        entry(2, "done", "look_up", 10.2, "t1"),
        entry(3, "begun", "pay", 11.0),
        entry(4, "done", "pay", 11.2, "t2"),
    ),
    questions=(QUESTION,),
    events=(
        StoredEvent(1, "stage", {"stage": "searching_data", "mark": "begin", "progress": 0.0, "total": 5.0}),
        StoredEvent(2, "question", {"question": 1}),
        StoredEvent(3, "closed", {"question": 1, "state": "answered"}),
        StoredEvent(4, "notify", {"method": "notifications/message", "params": {"data": "begun"}}),
        StoredEvent(5, "state", {"state": "completed"}),
        StoredEvent(6, "result", {}),
    ),
    streams=("s1",),
)
EFFECTS = (effect("look_up", "t1", 10.0, end=10.1), effect("pay", "t2", 11.0, end=11.1))


def asking(n: int, params: dict[str, Any] = PARAMS, key: str = "q1") -> Frame:
    named = {**params, "_meta": {"milepost/run_id": "run-1", "milepost/question": key, "milepost/request": 1}}
    return Frame(n, {"id": f"q-s1.{n}", "method": "elicitation/create", "params": named})


def progress(n: int, value: float) -> Frame:
    return Frame(n, {"method": "notifications/progress", "params": {"progressToken": "p", "progress": value}})


SAYING = Frame(4, {"method": "notifications/message", "params": {"data": "begun"}})
TELLING = Frame(6, {"id": 1, "result": {"structuredContent": RECEIPT}})


def told(*frames: Frame, after: int = 0, **more: Any) -> Told:
    frames = frames or (progress(1, 0.0), asking(2), SAYING, TELLING)
    said = {"acks": [Ack("h1-1: how many nights?", NIGHTS)], "result": {"structuredContent": RECEIPT}, **more}
    return Told("h1-1", "handshake", readings=[Reading("s1", after, list(frames))], **said)


RIGHT = History(runs=(RUN,), effects=EFFECTS, told=(told(),), steps=("look_up", "pay"))


def only(history: History, check: Any) -> str:
    """The one violation that this check, and no other that it doesn't imply, finds first."""
    found = list(check(history))
    assert len(found) == 1, found
    assert found[0] in violations(history)
    return found[0]


def with_run(**changes: Any) -> History:
    return replace(RIGHT, runs=(replace(RUN, **changes),))


def test_a_history_that_is_right_has_no_violation() -> None:
    assert violations(RIGHT) == []


# --- 1 -------------------------------------------------------------------------------------------


def test_a_run_that_is_left_waiting_is_a_violation() -> None:
    waiting = with_run(state="waiting", events=RUN.events[:4], event_seq=4, outcome=None)
    assert "is not finished: waiting" in only(waiting, checks.finished)


def test_a_run_that_failed_is_a_violation() -> None:
    assert "is failed" in only(with_run(state="failed"), checks.finished)


def test_1_two_results_are_a_violation() -> None:
    events = (*RUN.events, StoredEvent(7, "result", {}))
    assert "has 2 results" in only(with_run(events=events, event_seq=7), checks.one_final_state)


def test_1_an_event_after_the_result_is_a_violation() -> None:
    events = (*RUN.events, StoredEvent(7, "notify", {"method": "notifications/message"}))
    assert "goes on speaking" in only(with_run(events=events, event_seq=7), checks.one_final_state)


def test_1_two_final_states_are_a_violation() -> None:
    failed = StoredEvent(5, "state", {"state": "failed"})
    completed = StoredEvent(6, "state", {"state": "completed"})
    events = (*RUN.events[:4], failed, completed, StoredEvent(7, "result", {}))
    assert "was failed and completed" in only(with_run(events=events, event_seq=7), checks.one_final_state)


def test_1_a_final_run_without_a_result_is_a_violation() -> None:
    assert "no result event" in only(with_run(events=RUN.events[:5], event_seq=5), checks.one_final_state)


# --- conversations -------------------------------------------------------------------------------


def test_a_second_run_of_one_conversation_is_a_violation() -> None:
    second = replace(RUN, id="run-2", streams=())
    assert "has 2 runs" in only(replace(RIGHT, runs=(RUN, second)), checks.one_run_each)


def test_a_run_that_was_merged_is_not_counted() -> None:
    merged = replace(RUN, id="run-2", merged_into="run-1", streams=())
    assert list(checks.one_run_each(replace(RIGHT, runs=(RUN, merged)))) == []


def test_a_conversation_without_a_result_is_a_violation() -> None:
    assert "has no result" in only(replace(RIGHT, told=(told(result=None),)), checks.results_told)


def test_a_result_that_is_not_the_stored_one_is_a_violation() -> None:
    other = told(result={"structuredContent": {"conversation": "h2-1"}})
    assert "another result than is stored" in only(replace(RIGHT, told=(other,)), checks.results_told)


def test_what_a_client_complains_of_is_a_violation() -> None:
    other = told(complaints=["the session was lost"])
    assert "the session was lost" in only(replace(RIGHT, told=(other,)), checks.complaints)


# --- 2 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["entries", "events"])
def test_2_a_gap_is_a_violation(what: str) -> None:
    rows = getattr(RUN, what)
    assert f"the {what} of run run-1" in next(checks.gapless(with_run(**{what: (*rows[:1], *rows[2:])})))


def test_2_counters_that_disagree_with_the_rows_are_a_violation() -> None:
    assert "counters" in only(with_run(journal_seq=5), checks.gapless)


def test_2_a_question_closed_twice_is_a_violation() -> None:
    events = (*RUN.events[:3], StoredEvent(4, "closed", {"question": 1}), *RUN.events[4:])
    assert "was closed 2 times" in only(with_run(events=events), checks.one_answer)


def test_2_an_answer_without_its_reply_is_a_violation() -> None:
    assert "is answered with reply None" in only(
        with_run(questions=(replace(QUESTION, reply=None),)), checks.one_answer
    )


def test_2_a_step_recorded_twice_is_a_violation() -> None:
    entries = (*RUN.entries, entry(5, "done", "pay", 12.0, "t3"))
    assert "has recorded pay 2 times" in only(with_run(entries=entries, journal_seq=5), checks.one_record)


# --- 3 -------------------------------------------------------------------------------------------


def test_3_an_acknowledged_answer_that_is_not_stored_is_a_violation() -> None:
    lost = with_run(questions=(replace(QUESTION, state="withdrawn", reply=None),))
    assert "the acknowledged answer" in only(lost, checks.acknowledged_kept)


def test_3_an_acknowledged_answer_stored_otherwise_is_a_violation() -> None:
    other = {"result": {"action": "accept", "content": {"nights": 4}}}
    assert "is not stored" in only(with_run(questions=(replace(QUESTION, reply=other),)), checks.acknowledged_kept)


def test_3_a_completed_run_without_all_its_steps_is_a_violation() -> None:
    assert "has recorded ['look_up']" in only(
        with_run(entries=RUN.entries[:3], journal_seq=3), checks.recorded_once_in_all
    )


def test_3_a_recorded_value_that_nobody_gave_is_a_violation() -> None:
    entries = (*RUN.entries[:3], entry(4, "done", "pay", 11.2, "made up"))
    assert "nothing" in only(with_run(entries=entries), checks.recorded_once_in_all)


# --- 4 -------------------------------------------------------------------------------------------

KILLED = Disruption(1, 11.05)
CUT = effect("pay", "t9", 11.0)
AGAIN = effect("pay", "t2", 11.1, pid=2, end=11.15)


def test_4_a_step_that_was_cut_may_be_there_twice_under_one_key() -> None:
    history = replace(RIGHT, effects=(EFFECTS[0], CUT, AGAIN), disruptions=(KILLED,))
    assert violations(history) == []
    assert (checks.doubled(history), checks.doubled_otherwise(history)) == (1, 0)


def test_4_a_step_that_runs_after_it_was_recorded_is_a_violation() -> None:
    later = effect("pay", "t9", 11.3, pid=2)
    history = replace(RIGHT, effects=(*EFFECTS, later), disruptions=(Disruption(2, 11.4),))
    assert "was recorded, and ran 1 more times" in only(history, checks.recorded_never_again)


def test_4_a_step_that_ran_twice_without_a_kill_is_a_violation() -> None:
    history = replace(RIGHT, effects=(EFFECTS[0], CUT, AGAIN))
    assert "2 of them without any disruption" in only(history, checks.doubled_only_in_flight)
    assert checks.doubled_otherwise(history) == 1


def test_4_a_kill_of_another_process_excuses_nothing() -> None:
    history = replace(RIGHT, effects=(EFFECTS[0], CUT, AGAIN), disruptions=(Disruption(7, 11.05),))
    assert "without any disruption" in only(history, checks.doubled_only_in_flight)


def test_4_a_kill_after_the_record_excuses_nothing() -> None:
    first = effect("pay", "t2", 11.0, end=11.1)
    again = effect("pay", "t9", 11.3, pid=2)
    history = replace(RIGHT, effects=(EFFECTS[0], first, again), disruptions=(Disruption(1, 11.25),))
    assert "without any disruption" in only(history, checks.doubled_only_in_flight)


def test_4_a_stop_excuses_the_step_in_flight_and_nothing_after_it() -> None:
    stop = Disruption(1, 11.05, until=14.0)
    in_flight = replace(RIGHT, effects=(EFFECTS[0], CUT, AGAIN), disruptions=(stop,))
    assert violations(in_flight) == []
    after = effect("pay", "t9", 14.1)
    late = replace(RIGHT, effects=(EFFECTS[0], AGAIN, after), disruptions=(stop,))
    assert "without any disruption" in only(late, checks.doubled_only_in_flight)


def test_4_one_stop_excuses_one_step_of_a_run() -> None:
    stop = Disruption(1, 10.05, until=14.0)
    cut = (effect("look_up", "t8", 10.0), CUT)
    again = (effect("look_up", "t1", 10.1, pid=2, end=10.15), AGAIN)
    history = replace(RIGHT, effects=(*cut, *again), disruptions=(stop,))
    assert "let 2 calls of run run-1 run twice" in only(history, checks.one_in_flight)


def test_4_each_of_two_stops_excuses_the_step_that_it_cut() -> None:
    stops = (Disruption(1, 10.05, until=10.3), Disruption(1, 11.05, until=14.0))
    cut = (effect("look_up", "t8", 10.0, end=10.31), CUT)
    again = (effect("look_up", "t1", 10.1, pid=2, end=10.15), AGAIN)
    assert violations(replace(RIGHT, effects=(*cut, *again), disruptions=stops)) == []


def test_4_a_kill_long_after_the_end_excuses_nothing() -> None:
    first = effect("pay", "t9", 11.0, end=11.05)
    late = replace(RIGHT, effects=(EFFECTS[0], first, AGAIN), disruptions=(Disruption(1, 30.0),))
    assert "without any disruption" in only(late, checks.doubled_only_in_flight)


def test_a_call_that_only_asks_whether_to_join_is_no_second_run() -> None:
    ghost = replace(RUN, id="run-2", state="parked", rival="run-1", entries=(), questions=(), journal_seq=0,
                    events=(), event_seq=0, streams=(), outcome=None)  # fmt: skip
    assert violations(replace(RIGHT, runs=(RUN, ghost))) == []
    begun = replace(ghost, entries=RUN.entries, journal_seq=4)
    assert "has 2 runs" in only(replace(RIGHT, runs=(RUN, begun)), checks.one_run_each)


def test_4_another_idempotency_key_is_a_violation() -> None:
    again = replace(AGAIN, key="another")
    history = replace(RIGHT, effects=(EFFECTS[0], CUT, again), disruptions=(KILLED,))
    assert "gave the outside 2 idempotency keys" in only(history, checks.one_key)


def test_4_one_idempotency_key_for_two_calls_is_a_violation() -> None:
    history = replace(RIGHT, effects=(EFFECTS[0], replace(EFFECTS[1], key="key-look_up")))
    assert "one idempotency key" in only(history, checks.one_key)


def test_4_a_step_called_with_other_arguments_later_is_a_violation() -> None:
    other = replace(CUT, call='["pay", "h1-1", 2]', key="other")
    history = replace(RIGHT, effects=(*EFFECTS, other), disruptions=(KILLED,))
    assert "was called with 2 sets of arguments" in only(history, checks.one_call_per_step)


# --- 5 -------------------------------------------------------------------------------------------


def test_5_an_answered_question_asked_under_another_id_is_a_violation() -> None:
    again = replace(QUESTION, id=2, state="withdrawn", reply=None)
    assert "asks 'h1-1: how many nights?' again as 2" in only(
        with_run(questions=(QUESTION, again)), checks.not_asked_again
    )


def test_5_a_withdrawn_question_may_be_asked_again() -> None:
    first = replace(QUESTION, state="withdrawn", reply=None)
    assert list(checks.not_asked_again(with_run(questions=(first, replace(QUESTION, id=2))))) == []


def test_5_a_question_put_after_it_was_closed_is_a_violation() -> None:
    events = (*RUN.events[:3], StoredEvent(4, "question", {"question": 1}), *RUN.events[4:])
    assert "after it was closed" in only(with_run(events=events), checks.not_sent_after_closing)


# --- 6 -------------------------------------------------------------------------------------------


def test_6_an_event_read_twice_is_a_violation() -> None:
    read = told(asking(2), asking(2), SAYING, TELLING)
    assert "read events [0, 2, 2, 4, 6]" in only(replace(RIGHT, told=(read,)), checks.read_in_order)


def test_6_an_event_from_before_the_point_asked_for_is_a_violation() -> None:
    read = told(asking(2), SAYING, TELLING, after=2)
    assert "read events [2, 2, 4, 6]" in only(replace(RIGHT, told=(read,)), checks.read_in_order)


def test_6_an_event_that_is_not_stored_is_a_violation() -> None:
    read = told(SAYING, TELLING, Frame(7, {"method": "notifications/message"}))
    assert "which is not stored" in only(replace(RIGHT, told=(read,)), checks.read_as_stored)


def test_6_a_stream_that_is_not_stored_is_a_violation() -> None:
    lost = with_run(streams=())
    assert "which is not stored" in next(checks.read_as_stored(lost))


@pytest.mark.parametrize(
    ("frame", "what"),
    [
        (asking(2, {"message": "something else"}), "another question"),
        (asking(2, key="q2"), "another question"),
        (progress(1, 0.5), "other progress"),
        (Frame(4, {"method": "notifications/tools/list_changed"}), "another notification"),
        (Frame(6, {"id": 1, "result": {"structuredContent": {}}}), "another result"),
        (Frame(3, {"method": "notifications/message"}), "something else"),
    ],
)
def test_6_a_message_other_than_the_stored_one_is_a_violation(frame: Frame, what: str) -> None:
    assert what in only(replace(RIGHT, told=(told(frame),)), checks.read_as_stored)


def test_6_a_gap_in_what_was_read_is_a_violation() -> None:
    assert "missed event 4 (notify)" in only(replace(RIGHT, told=(told(asking(2), TELLING),)), checks.read_without_gap)


def test_6_what_a_merged_run_said_counts_first() -> None:
    first = replace(
        RUN,
        id="run-0",
        state="cancelled",
        merged_into="run-1",
        entries=(),
        questions=(),
        journal_seq=0,
        events=(StoredEvent(1, "merged", {"into": "run-1"}),),
        event_seq=1,
        streams=("s0",),
        outcome=None,
    )
    shifted = [Frame(frame.n + 1, frame.message) for frame in (asking(2), SAYING, TELLING)]
    moved = told()
    moved.readings = [Reading("s0", 0, shifted)]
    assert violations(replace(RIGHT, runs=(first, RUN), told=(moved,))) == []
