"""The demo itself: four real kills, and a proof that can fail."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from milepost.core.attempts import Loaded
from milepost.core.records import CallContext, Entry, EntryKind, Lane, Question, QuestionState, Run
from milepost.core.states import RunState
from milepost.demo import assistant, story, traveller
from milepost.demo.ledger import Effect, effects
from milepost.demo.proof import Check, RunProof, StepProof, judge, prove
from milepost.demo.telling import Telling


@pytest.fixture
def output() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def telling(output: io.StringIO) -> Telling:
    return Telling(Console(file=output, highlight=False, width=100))


@pytest.mark.long
@pytest.mark.timeout(150)
@pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")
async def test_the_whole_story_holds_and_is_told_without_colours_where_there_is_no_terminal(
    tmp_path: Path, telling: Telling, output: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(traveller, "THINKS", 0)
    monkeypatch.setattr(assistant, "AIRLINE_LATENCY", "0.5")
    assert await story.tell(tmp_path, telling)
    told = output.getvalue()
    assert told.count("kill -9") == 4
    assert told.count("a new server is up") == 4
    assert "all of it holds" in told
    assert "\x1b" not in told


async def test_a_server_that_does_not_come_up_ends_the_demo_with_its_log(
    tmp_path: Path, telling: Telling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assistant, "target", lambda: tmp_path / "missing.py")
    with pytest.raises(assistant.DemoFailed, match=r"missing\.py"):
        await story.tell(tmp_path, telling)


def test_the_command_says_what_failed_and_exits_with_1(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(folder: Path, telling: Telling) -> bool:
        raise assistant.DemoFailed("the reason")

    monkeypatch.setattr(story, "tell", fail)
    assert story.main() == 1
    assert "the reason" in capsys.readouterr().out


@pytest.mark.parametrize(("holds", "code"), [(True, 0), (False, 1)])
def test_the_exit_code_is_the_proof(monkeypatch: pytest.MonkeyPatch, *, holds: bool, code: int) -> None:
    async def tell(folder: Path, telling: Telling) -> bool:
        return holds

    monkeypatch.setattr(story, "tell", tell)
    assert story.main() == code


def test_a_ledger_that_is_not_there_yet_is_empty(tmp_path: Path) -> None:
    assert effects(tmp_path / "none.db", "QK7P2M") == []


def a_run(questions: list[Question], entries: list[Entry], state: RunState = RunState.COMPLETED) -> Loaded:
    call = CallContext("change_itinerary", {"pnr": "QK7P2M"}, 1, "2025-11-25")
    run = Run("r1", "change_itinerary", 1, Lane.WORKFLOW, state, call, "k", "s", b"", "", 0.0, 0.0)
    return Loaded(run, entries, questions)


def a_question(number: int, message: str, state: QuestionState = QuestionState.ANSWERED) -> Question:
    return Question("r1", number, "elicitation/create", {"message": message}, "d", state=state)


def failing(checks: list[Check]) -> list[str]:
    return [check.claim for check in checks if not check.holds]


GOOD = RunProof("r1", "completed", 3, 2, 2, (), (StepProof("look_up", 1, 0, 0), StepProof("rebook", 1, 1, 2)))


def test_the_proof_counts_records_effects_and_calls() -> None:
    entries = [Entry(1, EntryKind.BEGUN, "rebook"), Entry(2, EntryKind.DONE, "rebook")]
    proof = prove(a_run([a_question(1, "when?")], entries), [Effect(1, "rebook", 2), Effect(2, "stray", 1)])
    assert proof.steps == (StepProof("rebook", 1, 1, 2), StepProof("stray", 0, 1, 1))
    assert (proof.asked, proof.answered, proof.asked_twice) == (1, 1, ())


def test_what_holds_passes_every_check() -> None:
    assert failing(judge([GOOD], wanted=1, kills=2, asked_again=[])) == []


@pytest.mark.parametrize(
    ("proof", "claim"),
    [
        (RunProof("r1", "stuck", 3, 2, 2, (), GOOD.steps), "each call has one run"),
        (RunProof("r1", "completed", 3, 3, 2, (), GOOD.steps), "every question was asked"),
        (RunProof("r1", "completed", 3, 2, 2, ("when?",), GOOD.steps), "every question was asked"),
        (RunProof("r1", "completed", 3, 2, 2, (), (StepProof("rebook", 2, 1, 2),)), "every finished step"),
        (RunProof("r1", "completed", 3, 2, 2, (), (StepProof("rebook", 1, 2, 2),)), "every effect"),
        (RunProof("r1", "completed", 3, 2, 2, (), (StepProof("rebook", 1, 1, 9),)), "only steps that were killed"),
        (RunProof("r1", "completed", 3, 2, 2, (), ()), "every finished step"),
    ],
)
def test_what_does_not_hold_fails_its_check(proof: RunProof, claim: str) -> None:
    found = failing(judge([proof], wanted=1, kills=2, asked_again=[]))
    assert any(text.startswith(claim) for text in found)


def test_a_question_that_comes_again_after_its_answer_fails_the_proof() -> None:
    found = failing(judge([GOOD], wanted=1, kills=2, asked_again=["when?"]))
    assert found == ["every question was asked, and answered, once"]


def test_a_failed_proof_is_told_as_one(telling: Telling, output: io.StringIO) -> None:
    telling.verdict([Check("it holds", holds=True, found="1"), Check("it does not", holds=False, found="0")])
    assert "something does NOT hold" in output.getvalue()
