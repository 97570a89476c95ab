import pytest

from milepost.core.errors import AmbiguousCall
from milepost.core.records import Entry, EntryKind, Question, QuestionState
from milepost.core.replay import Address, Replay


def entry(n: int, kind: EntryKind, name: str = "book", digest: str = "d", occurrence: int = 1) -> Entry:
    return Entry(n, kind, name, digest, "", occurrence, "1")


def question(state: QuestionState, digest: str = "d") -> Question:
    return Question("run", 1, "elicitation/create", {}, digest, state=state)


def test_equal_calls_of_one_branch_are_counted() -> None:
    replay = Replay([], [])
    assert replay.address("book", "d", "", "main").occurrence == 1
    assert replay.address("book", "d", "", "main").occurrence == 2


def test_hazard_a3_the_same_call_from_two_branches_asks_for_a_key() -> None:
    replay = Replay([], [])
    replay.address("new_id", "d", "", "one")
    with pytest.raises(AmbiguousCall, match="key"):
        replay.address("new_id", "d", "", "two")
    assert replay.address("new_id", "d", "two", "two").occurrence == 1


def test_hazard_p2_8_a_restart_of_the_function_counts_anew() -> None:
    replay = Replay([], [])
    replay.address("book", "d", "", "main")
    assert replay.enter_stage("a") == 1
    replay.restart()
    assert replay.address("book", "d", "", "other").occurrence == 1
    assert replay.enter_stage("a") == 1


def test_hazard_a1_a_miss_is_held_back_while_recorded_calls_are_unreached() -> None:
    replay = Replay([entry(1, EntryKind.BEGUN), entry(2, EntryKind.DONE)], [])
    assert replay.reach_step(Address("book", "other", "", 1)) is None
    assert replay.held_back_by("book") == Address("book", "d", "", 1)
    record = replay.reach_step(Address("book", "d", "", 1))
    assert record is not None
    assert record.begun
    assert record.final is not None
    assert replay.held_back_by("book") is None
    assert replay.held_back_by("other") is None


def test_retries_are_remembered_in_order() -> None:
    replay = Replay([entry(1, EntryKind.RETRY), entry(2, EntryKind.RETRY), entry(3, EntryKind.FAILED)], [])
    record = replay.reach_step(Address("book", "d", "", 1))
    assert record is not None
    assert [e.n for e in record.retries] == [1, 2]
    assert record.final is not None
    assert record.final.kind is EntryKind.FAILED


def test_answered_questions_hold_back_and_open_ones_do_not() -> None:
    answered = Replay([], [question(QuestionState.ANSWERED)])
    assert answered.held_back_by("elicitation/create") is not None
    still_open = Replay([], [question(QuestionState.OPEN)])
    assert still_open.held_back_by("elicitation/create") is None
    assert still_open.reach_question(Address("elicitation/create", "d", "", 1)) is not None


def test_hazard_d6_a_withdrawn_question_is_as_if_never_asked() -> None:
    replay = Replay([], [question(QuestionState.WITHDRAWN)])
    assert replay.reach_question(Address("elicitation/create", "d", "", 1)) is None


def test_marks_and_notes_are_found_again() -> None:
    replay = Replay([entry(1, EntryKind.STAGE_BEGIN, "search"), entry(2, EntryKind.NOTE, "log")], [])
    assert [e.kind for e in replay.stage_marks("search", 1)] == [EntryKind.STAGE_BEGIN]
    assert replay.stage_marks("search", 2) == []
    assert replay.notes == {"log": 1}


def test_an_address_reads_well_in_a_message() -> None:
    assert str(Address("book", "0123456789", "ann", 2)) == "'book' (arguments 01234567, key 'ann', call 2)"
