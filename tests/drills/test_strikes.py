"""The plan of the second nemesis, what counts as a hit, and what is said of it."""

from __future__ import annotations

from test_checks import EFFECTS

from drills import strikes
from drills.findings import _split, inconclusive, spread
from drills.strikes import FAULTS, Strike, plan
from drills.talk import Resumption


def test_a_seed_repeats_its_plan() -> None:
    assert plan(7, 40) == plan(7, 40) != plan(8, 40)


def test_every_fault_comes_up() -> None:
    assert set(plan(1, len(FAULTS))) == set(FAULTS)
    assert len(plan(1, 5)) == 5


def test_only_the_named_faults_come_up() -> None:
    assert set(plan(1, 20, ["kill", "pause"])) == {"kill", "pause"}


def test_every_fault_that_waits_for_a_lease_is_one() -> None:
    assert set(strikes.LEASED) <= set(FAULTS)


def test_a_strike_counts_only_if_it_hit_work_in_flight() -> None:
    assert not Strike("kill", 1.0).hit
    assert Strike("kill", 1.0, steps=list(EFFECTS)).hit
    assert Strike("cut clients", 1.0, requests=1).hit
    assert not Strike("shift the clock", 1.0, requests=1, missing="no libfaketime").hit


def test_a_fault_that_could_not_be_done_or_hit_nothing_is_inconclusive() -> None:
    cut, missed = Strike("cut clients", 1.0, requests=1), Strike("cut clients", 2.0)
    shift = Strike("shift the clock", 1.0, missing="there is no libfaketime")
    assert inconclusive([cut, missed]) == []
    assert inconclusive([missed, shift]) == [
        "shift the clock: there is no libfaketime",
        "cut clients: hit no work in flight",
    ]


def resumed(broke: float, back: float) -> Resumption:
    return Resumption("modern", broke, back + 1, 0.0, None, back)


def test_who_had_to_wait_for_a_lease_or_for_a_server_was_not_back_at_once() -> None:
    at_once, late, paused = resumed(10.0, 10.1), resumed(10.0, 11.0), resumed(20.1, 20.2)
    pause = Strike("pause", 20.0, until=26.0)
    kill = Strike("kill", 9.9, until=12.0)
    assert _split([pause, kill], [at_once, late, paused]) == ([at_once], [late, paused])


def test_a_spread_is_count_median_95_99_and_maximum() -> None:
    assert spread([n / 10 for n in range(100)]) == ["100", "5.00", "9.50", "9.90", "9.90"]
    assert spread([]) == ["0", "-", "-", "-", "-"]
