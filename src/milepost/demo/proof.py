"""The proof: what the store and the booking system's ledger hold after the story, and what must hold of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from milepost.core.attempts import Loaded
from milepost.core.outside import Find
from milepost.core.records import EntryKind, QuestionState
from milepost.core.states import RunState
from milepost.demo.ledger import Effect
from milepost.store.url import open_store


@dataclass(frozen=True, slots=True)
class StepProof:
    """One step: how often its result was recorded, and how often the outside world saw it."""

    name: str
    recorded: int
    effects: int
    calls: int


@dataclass(frozen=True, slots=True)
class RunProof:
    """One run, as stored."""

    run_id: str
    state: str
    attempts: int
    asked: int
    answered: int
    asked_twice: tuple[str, ...]
    """Questions that stand in the store more than once."""
    steps: tuple[StepProof, ...]


@dataclass(frozen=True, slots=True)
class Check:
    """One claim, whether it holds, and the numbers."""

    claim: str
    holds: bool
    found: str


async def stored_runs(store_url: str) -> list[Loaded]:
    """All runs of the store with their journals, oldest first."""
    store = open_store(store_url)
    await store.open()
    try:
        runs = sorted(await store.find(Find()), key=lambda run: run.created_at)
        loaded = [await store.load(run.id) for run in runs]
    finally:
        await store.aclose()
    return [one for one in loaded if one is not None]


def prove(loaded: Loaded, effects: Iterable[Effect]) -> RunProof:
    """Put what the store holds of a run beside what the outside world saw."""
    recorded = Counter(entry.name for entry in loaded.entries if entry.kind is EntryKind.DONE)
    done = list(effects)
    seen = Counter(effect.kind for effect in done)
    calls = Counter({kind: sum(effect.calls for effect in done if effect.kind == kind) for kind in seen})
    names = [*recorded, *(kind for kind in seen if kind not in recorded)]
    texts = Counter(str(question.params) for question in loaded.questions)
    return RunProof(
        run_id=loaded.run.id,
        state=str(loaded.run.state),
        attempts=loaded.run.epoch,
        asked=len(loaded.questions),
        answered=sum(question.state is QuestionState.ANSWERED for question in loaded.questions),
        asked_twice=tuple(text for text, count in texts.items() if count > 1),
        steps=tuple(StepProof(name, recorded[name], seen[name], calls[name]) for name in names),
    )


def judge(proofs: Sequence[RunProof], *, wanted: int, kills: int, asked_again: Sequence[str]) -> list[Check]:
    """What must hold over all acts. `asked_again`: answered questions that reached a client once more."""
    asked, answered = sum(proof.asked for proof in proofs), sum(proof.answered for proof in proofs)
    steps = [step for proof in proofs for step in proof.steps]
    effects = [step for step in steps if step.effects]
    done = sum(proof.state == RunState.COMPLETED for proof in proofs)
    twice = sum(len(proof.asked_twice) for proof in proofs) + len(asked_again)
    repeated = sum(step.calls - step.effects for step in effects)
    return [
        Check("each call has one run, and it is completed", len(proofs) == done == wanted, f"{done} of {wanted}"),
        Check("every question was asked, and answered, once", asked == answered and not twice, f"{answered}/{asked}"),
        Check(
            "every finished step was recorded once",
            bool(steps) and all(step.recorded == 1 for step in steps),
            f"{sum(step.recorded for step in steps)} for {len(steps)} steps",
        ),
        Check(
            "every effect on the outside world happened once",
            bool(effects) and all(step.effects == 1 for step in effects),
            f"{sum(step.effects for step in effects)} for {len(effects)} steps",
        ),
        Check(
            f"only steps that were killed in flight were asked for again (at most {kills})",
            repeated <= kills,
            f"{repeated}, each with its first idempotency key",
        ),
    ]
