from pathlib import Path

from milepost.core.errors import LimitReached, Overloaded, StepError
from milepost.core.spec import Catalogue, WorkflowSpec
from milepost.core.states import ANSWERABLE, CLAIMABLE, FINAL, TRANSITIONS, UNFINISHED, Cause, RunState, diagram, follow

DOCS = Path(__file__).parents[2] / "docs"


def test_nothing_follows_a_final_state() -> None:
    assert not [state for state, _ in TRANSITIONS if state in FINAL]


def test_every_state_can_be_reached_and_every_unfinished_one_left() -> None:
    assert {*TRANSITIONS.values(), RunState.READY} == set(RunState)
    assert {state for state, _ in TRANSITIONS} == UNFINISHED


def test_what_is_not_in_the_table_does_not_happen() -> None:
    assert follow(RunState.WAITING, Cause.ANSWER) is RunState.READY
    assert follow(RunState.COMPLETED, Cause.ANSWER) is None


def test_only_unfinished_runs_are_claimed_or_answered() -> None:
    assert CLAIMABLE | ANSWERABLE <= UNFINISHED


def test_the_diagram_in_the_docs_is_drawn_from_the_table() -> None:
    assert diagram() in (DOCS / "concepts.md").read_text()


def test_a_catalogue_accepts_every_version_that_its_code_can_go_on_with() -> None:
    catalogue = Catalogue({"book": WorkflowSpec(version=2, accepts=frozenset({1, 2}))})
    assert catalogue.accepted() == {("book", 1), ("book", 2)}


def test_errors_carry_what_their_readers_need() -> None:
    assert Overloaded("full", retry_after=3).retry_after == 3
    assert str(StepError("book", "SeatTaken", "12A")) == "step 'book' failed: SeatTaken: 12A"
    assert isinstance(LimitReached("x"), Exception)
