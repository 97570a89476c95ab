"""What is held against a conversation of the client's drill: every lie, every second effect, every second asking."""

from __future__ import annotations

import json
from typing import Any

from drills.client import verdicts
from drills.client.effects import receipt
from drills.client.findings import Record, rate
from drills.client.person import answer_to
from drills.client.told import FINISHED, NO_END, NOT_SENT, REFUSED, SERVER_ERROR, UNKNOWN, Told
from drills.ledger import Effect

QUESTIONS = verdicts.asked_by("c")


def told(outcome: str = FINISHED, **more: Any) -> Told:
    return Told("c", "milepost", "modern", "book", "milepost", "reset, done", outcome, hits=["reset, done"], **more)


def effect(step: str, token: str = "", key: str = "", pid: int = 1) -> Effect:
    token = token or f"t-{step}"
    return Effect("c", step, json.dumps([step, "c"]), key or token, "run", pid, 1.0, token=token)


def result(**changed: Any) -> dict[str, Any]:
    answers = {field: answer_to(question, field) for field, question in QUESTIONS.items()}
    return receipt("c", **(answers | changed), reserve="t-reserve", pay="t-pay")


DONE = [effect("reserve"), effect("pay")]


def found(told: Told, *effects: Effect) -> str:
    return "\n".join(verdicts.violations(told, effects))


def test_a_true_result_is_nothing_to_complain_of() -> None:
    shown = [pair for text in QUESTIONS.values() for pair in (("asked", text), ("answered", text))]
    assert found(told(result=result(), shown=shown), *DONE) == ""


def test_an_effect_that_is_there_twice_is_one_whatever_was_told() -> None:
    for outcome in (FINISHED, UNKNOWN, SERVER_ERROR):
        assert "pay was done 2 times" in found(told(outcome), *DONE, effect("pay", "t-other"))


def test_a_look_may_be_there_twice() -> None:
    assert found(told(UNKNOWN), effect("look", "a"), effect("look", "b")) == ""


def test_a_step_that_died_with_its_server_before_it_was_recorded_may_be_there_twice_under_one_key() -> None:
    twice = [effect("pay", "a", key="k", pid=1), effect("pay", "b", key="k", pid=2)]
    assert found(told(UNKNOWN), *twice) == ""
    assert verdicts.in_flight(twice) == 1
    same_process = [effect("pay", "a", key="k"), effect("pay", "b", key="k")]
    assert "pay was done 2 times" in found(told(UNKNOWN), *same_process)


def test_not_sent_and_refused_mean_that_nothing_was_done() -> None:
    for outcome in (NOT_SENT, REFUSED):
        assert found(told(outcome)) == ""
        assert "but there is {'reserve': 1}" in found(told(outcome), effect("reserve"))


def test_unknown_is_true_either_way() -> None:
    assert found(told(UNKNOWN)) == found(told(UNKNOWN), *DONE) == ""


def test_a_result_must_be_what_was_done_and_what_was_answered() -> None:
    assert "a pay that nobody did" in found(told(result=result()), effect("reserve"))
    wrong = 31 - answer_to(QUESTIONS["nights"], "nights")
    assert f"has nights {wrong}" in found(told(result=result(nights=wrong)), *DONE)


def test_an_answered_question_that_is_asked_again_is_asked_twice() -> None:
    again = [("asked", "q"), ("answered", "q"), ("asked", "q")]
    assert "asked twice: 'q'" in found(told(UNKNOWN, shown=again))
    open_still = [("asked", "q"), ("asked", "q"), ("answered", "q")]
    assert found(told(UNKNOWN, shown=open_still)) == ""
    assert verdicts.shown_again(told(shown=open_still)) == 1


def test_of_a_client_that_was_killed_an_answer_counts_once_it_is_in_the_journal() -> None:
    given = [("asked", "q"), ("answered", "q"), ("killed", ""), ("asked", "q")]
    assert found(told(UNKNOWN, kills=1, shown=given)) == ""
    kept = [("asked", "q"), ("answered", "q"), ("kept", "q"), ("killed", ""), ("asked", "q")]
    assert "asked twice" in found(told(UNKNOWN, kills=1, shown=kept))


def test_against_milepost_a_call_must_finish() -> None:
    assert "did not finish: unknown" in found(told(UNKNOWN, must_finish=True))
    assert found(told(UNKNOWN)) == ""


def test_a_call_without_an_end_or_an_outcome_is_a_violation_everywhere() -> None:
    assert "no end" in found(told(NO_END, why="no end within 5 s"))
    assert "KeyError" in found(told("bug", why="KeyError: 'x'"))


def test_the_stock_clients_calls_are_told_and_not_judged() -> None:
    stock = told(UNKNOWN)
    stock.client = "stock"
    record = Record(1, [stock], {"c": [*DONE, effect("pay", "t-other")]})
    assert record.violations() == []


def test_a_fault_that_never_hit_is_named() -> None:
    missed, hit = told(), told()
    missed.fault, missed.hits = "401", []
    assert Record(1, [missed, hit]).never_hit() == ["401"]


def test_a_rate_comes_with_its_bound() -> None:
    assert rate(0, 0) == "-"
    assert rate(59, 59) == "59 of 59, 100 % (> 95 %)"
    assert rate(12, 15) == "12 of 15, 80 % (> 56 %)"
