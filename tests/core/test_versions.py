"""Who may run a run's attempts, and which release a new run is given to."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.core.records import CallContext, Lane, Replica, Run
from milepost.core.states import RunState
from milepost.core.versions import EVERY_TOOL, Need, choose, held_up, is_met, need_of, unmet

TOOL = "change_itinerary"
CALL = CallContext(TOOL, {}, 1, "2025-11-25")
RUN = Run("run-1", TOOL, 1, Lane.WORKFLOW, RunState.READY, CALL, "k", "s", b"0" * 16, "a", 0.0, 0.0)


def replica(name: str = "r1", release: str = "a", *versions: int, alive: bool = True) -> Replica:
    return Replica(name, release, frozenset((TOOL, version) for version in versions or (1,)), alive=alive)


@pytest.mark.parametrize(
    ("need", "met"),
    [
        (Need(TOOL, 1), True),
        (Need(TOOL, 2), False),
        (Need("other", 1), False),
        (Need(TOOL, 1, "a"), True),
        (Need(TOOL, 1, "b"), False),
    ],
)
def test_a_need_is_met_by_a_replica_of_that_version_and_release(need: Need, met: bool) -> None:
    assert is_met(need, [replica()]) is met
    assert (unmet(need, [replica()]) is None) is met
    assert not is_met(need, [replica(alive=False)])


def test_what_nobody_accepts_is_said_in_words() -> None:
    assert unmet(Need(TOOL, 1), [replica("r1", "a", 2)]) == (
        "no replica accepts version 1 of change_itinerary; it goes on when one does"
    )
    assert unmet(Need(TOOL, 1, "a"), [replica("r1", "a", 2)]) == (
        "no replica of release a accepts version 1 of change_itinerary; it goes on when one does"
    )
    assert unmet(Need(TOOL, 1, "b"), [replica()]) == (
        "no replica of release b is there, which change_itinerary was given to; it goes on when one is"
    )


def test_a_run_is_held_up_only_while_it_is_a_replicas_turn() -> None:
    others = [replica("r1", "a", 2)]
    words = unmet(need_of(RUN), others)
    assert words is not None
    assert held_up(RUN, others) == words
    assert held_up(replace(RUN, state=RunState.CANCELLING), others) == words
    for state in (RunState.WAITING, RunState.PARKED, RunState.STUCK, RunState.COMPLETED):
        assert held_up(replace(RUN, state=state), others) is None
    assert held_up(replace(RUN, lane=Lane.HOT), others) is None
    assert held_up(RUN, [replica()]) is None


def test_a_running_run_is_held_up_once_its_owner_is_gone() -> None:
    running = replace(RUN, state=RunState.RUNNING, owner="old")
    newer = replica("new", "b", 2)
    assert held_up(running, [newer, replica("old", "a", 1)]) is None
    assert held_up(running, [newer, replica("old", "a", 1, alive=False)]) is not None
    assert held_up(running, [newer]) is not None
    assert held_up(running, [newer, replica("another", "a", 1)]) is None


def test_nothing_is_given_where_nothing_is_said_or_nobody_is_there() -> None:
    assert choose({}, TOOL, 1, b"ann", [replica()]) == ("", 1)
    assert choose({TOOL: {"b": 1.0}}, TOOL, 1, b"ann", [replica()]) == ("", 1)
    assert choose({TOOL: {"b": 1.0}}, TOOL, 1, b"ann", [replica("r2", "b", alive=False)]) == ("", 1)
    no_such_tool = Replica("r2", "b", frozenset({("other", 1)}))
    assert choose({TOOL: {"b": 1.0}}, TOOL, 1, b"ann", [no_such_tool]) == ("", 1)


def test_a_tools_own_entry_is_stronger_than_the_one_for_every_tool() -> None:
    there = [replica("r1", "a"), replica("r2", "b")]
    shares = {EVERY_TOOL: {"a": 1.0}, TOOL: {"b": 1.0}}
    assert choose(shares, TOOL, 1, b"ann", there) == ("b", 1)
    assert choose({EVERY_TOOL: {"a": 1.0}}, TOOL, 1, b"ann", there) == ("a", 1)


def test_a_release_runs_what_it_is_given_in_its_own_version() -> None:
    there = [replica("r1", "a", 1), replica("r2", "b", 1, 2)]
    assert choose({TOOL: {"b": 1.0}}, TOOL, 1, b"ann", there) == ("b", 2)
    assert choose({TOOL: {"a": 1.0}}, TOOL, 2, b"ann", there) == ("a", 1)


def test_weights_are_shares_of_the_callers() -> None:
    there = [replica("r1", "a"), replica("r2", "b")]
    callers = [str(number).encode() for number in range(4000)]
    to_b = sum(choose({TOOL: {"a": 95.0, "b": 5.0}}, TOOL, 1, who, there)[0] == "b" for who in callers)
    assert 120 <= to_b <= 280, "5 % of 4000 is 200, and its standard deviation is 14"


@given(st.binary(max_size=20), st.floats(1.0, 100.0), st.floats(1.0, 100.0), st.floats(1.0, 100.0))
def test_a_larger_weight_takes_callers_and_moves_no_one_else(who: bytes, a: float, b: float, more: float) -> None:
    there = [replica("r1", "a"), replica("r2", "b"), replica("r3", "c")]
    before, _ = choose({TOOL: {"a": a, "b": b, "c": 10.0}}, TOOL, 1, who, there)
    after, _ = choose({TOOL: {"a": a, "b": b + more, "c": 10.0}}, TOOL, 1, who, there)
    assert after in (before, "b")
    assert choose({TOOL: {"a": a, "b": b, "c": 10.0}}, TOOL, 1, who, there)[0] == before
