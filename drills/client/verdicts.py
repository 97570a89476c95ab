"""What is held against a conversation: pure. What its client told, compared with what the outside ledger saw.

a result      has each of its effects in the ledger exactly once, and the answers that the person gave
not sent, refused    has no effect there, not even later
unknown       may have it or not; but none twice
any           asks nobody what they have answered
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from drills.client.effects import NOT_REPEATABLE, go_on, how_many, which_room
from drills.client.person import answer_to
from drills.client.plan import BOOK
from drills.client.told import FINISHED, NO_END, WITHOUT_EFFECT, Told
from drills.ledger import Effect


def violations(told: Told, effects: Sequence[Effect]) -> Iterator[str]:
    """Each with what one needs to find it again. `effects`: of this conversation alone."""
    for what in (*_repeated(told, effects), *_untrue(told, effects), *_asked_twice(told), *_unfinished(told)):
        yield f"{told.name} ({told.server}, {told.era}, {told.tool}; {', '.join(told.hits) or 'no hit'}): {what}"


def in_flight(effects: Sequence[Effect]) -> int:
    """Steps that are there twice under one idempotency key, from two processes: the first was killed before it could
    record them. The outside is given the key, so it can tell."""
    return sum(1 for group in _by_call(effects) if len(group) > 1 and _allowed(group))


def _by_call(effects: Sequence[Effect]) -> list[list[Effect]]:
    grouped: dict[str, list[Effect]] = {}
    for effect in effects:
        if effect.step in NOT_REPEATABLE:
            grouped.setdefault(effect.call, []).append(effect)
    return list(grouped.values())


def _allowed(group: Sequence[Effect]) -> bool:
    return len({effect.key for effect in group}) == 1 and len({effect.pid for effect in group}) == len(group)


def _repeated(told: Told, effects: Sequence[Effect]) -> Iterator[str]:
    for group in _by_call(effects):
        if len(group) > 1 and not _allowed(group):
            runs = sorted({one.run for one in group})
            yield f"{group[0].step} was done {len(group)} times (runs {runs}); told: {told.outcome}"


def _untrue(told: Told, effects: Sequence[Effect]) -> Iterator[str]:
    done = Counter(effect.step for effect in effects)
    if told.outcome in WITHOUT_EFFECT and done:
        yield f"told that it was {told.outcome} ({told.why}), but there is {dict(done)}"
    if told.outcome == FINISHED and told.result is not None:
        yield from _wrong(told, told.result, effects)
    if told.outcome == "bug":
        yield f"no outcome, but {told.why}"
    if told.outcome == NO_END:
        yield f"no end: {told.why}"


def _wrong(told: Told, result: Mapping[str, Any], effects: Sequence[Effect]) -> Iterator[str]:
    tokens = {effect.token: effect.step for effect in effects}
    wanted = {"reserve", "pay"} if told.tool == BOOK else {told.tool}
    for step in wanted:
        if tokens.get(result["tokens"].get(step)) != step:
            yield f"its result tells of a {step} that nobody did"
    if told.tool == BOOK:
        for field, question in asked_by(told.name).items():
            if result[field] != answer_to(question, field):
                yield f"its result has {field} {result[field]!r}, not what was answered"


def asked_by(conversation: str) -> dict[str, str]:
    """The questions of `book`, by the field that answers them."""
    nights = how_many(conversation)
    room = which_room(conversation, answer_to(nights, "nights"))
    return {"nights": nights, "room": room, "go_ahead": go_on(conversation, answer_to(room, "room"))}


def _asked_twice(told: Told) -> Iterator[str]:
    """Showing an open question again after the client's own death is no second asking: nobody had answered it."""
    counts = "kept" if told.kills else "answered"
    answered: set[str] = set()
    for kind, text in told.shown:
        if kind == counts:
            answered.add(text)
        elif kind == "asked" and text in answered:
            yield f"asked twice: {text!r}"


def shown_again(told: Told) -> int:
    """How often an open question was shown again, whose answer was not given yet, or died with the process."""
    asked = Counter(text for kind, text in told.shown if kind == "asked")
    return sum(count - 1 for count in asked.values())


def _unfinished(told: Told) -> Iterator[str]:
    if told.must_finish and told.client == "milepost" and told.outcome not in (FINISHED, NO_END, "bug"):
        yield f"did not finish: {told.outcome} ({told.why})"
