"""Taking an answer that came as a JSON-RPC response: which question it is for, and what became of it.

The id that a question was sent under leads to its stream, its run and its event, on any replica. Nothing is
acknowledged before it is durable.
"""

from __future__ import annotations

from dataclasses import dataclass

import structlog
from mcp_types import INVALID_PARAMS, INVALID_REQUEST

from milepost.core import ids
from milepost.core.outside import Verdict
from milepost.core.records import EventKind, Principal, Reply
from milepost.wire.follow import locate
from milepost.wire.parts import Parts
from milepost.wire.rpc import Message, Refused
from milepost.wire.streams import parse_sending_id

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Asked:
    """The question that an answer's id names."""

    run_id: str
    question: int
    via: str
    """The event id of its sending."""


async def find(parts: Parts, message: Message, *, session: str | None, principal: Principal) -> Asked | None:
    """What the answer is for; None if its id is of nothing that we ask. Raises Refused (404): not the caller's."""
    place = parse_sending_id(message["id"])
    if place is None:
        return None
    stream = await parts.store.stream(place[0])
    if stream is None or stream.session != session or stream.owner.owner != principal.owner:
        raise _unknown()
    run, n = await locate(parts, stream, place[1])
    events = await parts.store.events(run.id, after=n - 1, limit=1) if run is not None else ()
    if run is None or not events or events[0].kind is not EventKind.QUESTION:
        raise _unknown()
    return Asked(run.id, events[0].body["question"], ids.event_id(*place))


async def take(parts: Parts, message: Message, *, session: str | None, principal: Principal) -> None:
    """Record an answer. Returns once it is durable, or was dropped because its question is closed (logged).

    Raises Refused: 404 for an id that isn't the caller's, 400 for content that breaks the schema (the question has
    been asked anew, with the reason, under another id).
    """
    asked = await find(parts, message, session=session, principal=principal)
    if asked is None:
        _log.info("a response to nothing that was asked was dropped")
        return
    reply = Reply(result=message.get("result"), error=message.get("error"))
    rulings = await parts.runs.answer(asked.run_id, {asked.question: reply}, by=principal, via=asked.via)
    ruling = rulings[asked.question]
    if ruling.verdict is Verdict.INVALID:
        _log.info("an answer was refused", run_id=asked.run_id, question=asked.question, reason=ruling.reason)
        raise Refused(400, INVALID_PARAMS, f"The answer was not accepted, the question is asked again: {ruling.reason}")
    if ruling.verdict in (Verdict.CLOSED, Verdict.UNKNOWN):
        _log.info("a late answer was dropped", run_id=asked.run_id, question=asked.question, verdict=ruling.verdict)


def _unknown() -> Refused:
    return Refused(404, INVALID_REQUEST, "This answers no question of yours")
