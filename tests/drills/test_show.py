"""`make demo-replicas` tells what happened, and would say so if it were not true."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from test_checks import RUN, told

from drills.history import Told
from drills.show import story
from drills.show.proof import judge
from drills.show.telling import CrowdTelling
from drills.show.travellers import pnrs
from milepost.demo.proof import Check

TRIP = replace(RUN, tool="change_itinerary")
EFFECTS = [("h1-1", kind, 1) for kind in ("hold_seat", "rebook", "send_letter")]


def failed(checks: list[Check]) -> list[str]:
    return [check.claim for check in checks if not check.holds]


def test_all_holds_where_nothing_was_lost() -> None:
    assert failed(judge([TRIP], [told()], EFFECTS, cut=0)) == []


@pytest.mark.parametrize(
    ("runs", "clients", "effects", "wrong"),
    [
        ([TRIP], [told(result=None)], EFFECTS, "every traveller has the receipt"),
        ([replace(TRIP, questions=())], [told()], EFFECTS, "no answer that was acknowledged is lost"),
        ([TRIP], [told(complaints=["asked again: 'When?'"])], EFFECTS, "no answered question was asked again"),
        ([TRIP], [told()], EFFECTS[:2], "every effect on the outside world happened once"),
        ([TRIP], [told()], [*EFFECTS, ("h1-1", "rebook", 1)], "every effect on the outside world happened once"),
        ([TRIP], [told()], [*EFFECTS[:2], ("h1-1", "send_letter", 3)], "only steps that were killed in flight"),
        ([replace(TRIP, event_seq=7)], [told()], EFFECTS, "journals, events and streams have no gap"),
    ],
)
def test_each_claim_fails_where_it_is_not_true(
    runs: list[object], clients: list[Told], effects: list[tuple[str, str, int]], wrong: str
) -> None:
    checks = judge(runs, clients, effects, cut=1)  # type: ignore[arg-type]
    assert any(claim.startswith(wrong) for claim in failed(checks)), failed(checks)


def test_every_traveller_has_a_locator_of_their_own() -> None:
    some = [pnr for pnr, _ in zip(pnrs(), range(1000), strict=False)]
    assert len(set(some)) == 1000
    assert {len(pnr) for pnr in some} == {6}


@pytest.mark.anyio
@pytest.mark.long
@pytest.mark.timeout(180)
async def test_a_crowd_loses_nothing_when_a_replica_is_killed_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(story, "AT_ONCE", 4)
    said = Console(file=io.StringIO(), width=100)
    assert await story.Show(tmp_path, CrowdTelling(said)).run(kills=1)
    assert isinstance(said.file, io.StringIO)
    text = said.file.getvalue()
    assert "kill -9" in text
    assert "has joined" in text
    assert "all of it holds" in text
