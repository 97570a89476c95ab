"""A seed makes one plan, and every plan has something of everything."""

from __future__ import annotations

from drills.plan import ERAS, POINTS, plan


def test_the_same_seed_makes_the_same_plan() -> None:
    assert plan(7, 50) == plan(7, 50)
    assert plan(7, 50) != plan(8, 50)


def test_a_short_plan_has_every_era_and_every_point_and_both_numbers_of_servers() -> None:
    kills = plan(1, 24)
    assert len(kills) == 24
    assert {planned.era for planned in kills} == set(ERAS)
    assert {planned.point for planned in kills[1:]} == set(POINTS)
    assert {planned.servers for planned in kills} == {1, 2}


def test_a_plan_begins_with_the_birth_of_the_store() -> None:
    assert [planned.point == "birth" for planned in plan(3, 24)] == [True] + [False] * 23


def test_a_plan_of_one_kill_is_just_that() -> None:
    assert len(plan(3, 1)) == 1
