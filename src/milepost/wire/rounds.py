"""One leg of a multi round-trip call (2026-07-28): follow the run until it is done, or asks something.

A leg ends with the run's result, with the questions that are open (as `input_required`, sealed to this very
call), or, for a client that can't be asked, with a plain result that says how to answer. Which it is comes from
the run as stored, never from this leg's own memory, so a replayed leg says the same.
Source: 2026-07-28 basic/patterns/mrtr.mdx.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import anyio

from milepost.core import ids
from milepost.core.errors import UnknownRun
from milepost.core.outside import Verdict
from milepost.core.records import Delivery, Event, EventKind, JSONObject, Lane, Question, Reply, Run, Stream
from milepost.core.states import RunState
from milepost.engine.hub import Glimpse
from milepost.wire.by_hand import by_hand_result, key_of, question_of, stuck_result
from milepost.wire.follow import Sink
from milepost.wire.held import HeldUp, held_result
from milepost.wire.parts import Parts
from milepost.wire.rpc import Message, success
from milepost.wire.seal import Bound, unknown_state
from milepost.wire.streams import META, Rendering, as_sent, at_rest, can_ask

_QUIET = 0.2
"""Seconds after which a hot call with open questions counts as at rest: its row says `running` throughout."""

_TOLD = (EventKind.STAGE, EventKind.PROGRESS, EventKind.NOTIFY)
_TURNS = (EventKind.RESULT, EventKind.MERGED)


@dataclass(slots=True)
class Leg:
    """One request's part of a run."""

    parts: Parts
    rendering: Rendering
    bound: Bound
    sink: Sink
    notes: Mapping[int, str] = field(default_factory=dict)
    """Why answers of this request were refused, by question."""
    extra: list[Stream] = field(default_factory=list)
    final: bool = False
    """The response is the run's result."""
    hot: bool = False
    """The run is held in memory: it can't be parked."""
    retry_after: int | None = None
    """In how many seconds the client does well to come back, where the response says no more than that."""
    held: HeldUp = field(init=False)
    _seen: int = 0
    _spoke: float = 0.0
    """When something was said last, monotonic seconds."""

    def __post_init__(self) -> None:
        self._spoke = anyio.current_time()
        self.held = HeldUp(self.parts)

    async def response(self, after: int) -> Message:
        """The response of this request, told from event `after` on."""
        run_id: str | None = self.rendering.stream.run_id
        self._seen = after
        while True:
            assert run_id is not None  # noqa: S101  mergers end at a run
            with self.parts.following(run_id), self.parts.runs.feed(run_id, after=self._seen) as feed:
                response, into = await self._one_run(run_id, feed)
            if response is not None:
                return response
            run_id, self._seen = await self._merge(into), 0

    async def _one_run(self, run_id: str, feed: Any) -> tuple[Message | None, str]:
        """(the response, "") or (None, the run that this one was merged into)."""
        while True:
            run = await self.parts.runs.run(run_id)
            if run is None:
                raise unknown_state()
            self.hot = run.lane is Lane.HOT
            while self._seen < run.event_seq and not feed.over:
                await self._tell(await feed.next(timeout=self.parts.limits.heartbeat))
            if run.merged_into is not None:
                return None, run.merged_into
            result = await self._standing(run)
            if result is not None:
                return result, ""
            await self._until_turn(feed, run)

    async def _until_turn(self, feed: Any, run: Run) -> None:
        """Tell what comes until the run may stand otherwise than it did."""
        heartbeat = self.parts.limits.heartbeat
        wait = min(_QUIET, heartbeat) if self.hot else heartbeat
        item = await feed.next(timeout=wait)
        while item is not None and not _turns(item):
            await self._tell(item)
            item = await feed.next(timeout=wait)
        await self._tell(item)
        if item is None and anyio.current_time() - self._spoke >= (heartbeat if self.hot else 0.0):
            await self._beat(run)

    async def _beat(self, run: Run) -> None:
        """Say that work goes on, or why it doesn't."""
        why = None if self.hot else await self.held.look(run.id)
        if self.held.for_long:
            return
        self._spoke = anyio.current_time()
        message = self.rendering.progress.beat(why)
        await (self.sink.beat() if message is None else self.sink.say(message))

    async def _tell(self, item: Event | Glimpse | None) -> None:
        message = None
        if isinstance(item, Glimpse):
            message = self.rendering.glimpse(item)
        elif item is not None:
            self._seen = item.n
            message = self.rendering.message(item, {}) if item.kind in _TOLD else None
        if message is not None:
            self._spoke = anyio.current_time()
            await self.sink.say(message)

    async def _standing(self, run: Run) -> Message | None:
        """The response that this run's state calls for, None while there is none."""
        if run.outcome is not None:
            self.final = True
            return self.rendering.result(run.id, self.parts.outcome(run))
        if run.state is RunState.STUCK:
            return self._success(run, stuck_result(run))
        if run.state is not RunState.WAITING and run.lane is not Lane.HOT:
            return self._held_up(run) if self.held.for_long else None
        questions = await self.parts.runs.open_questions(run.id)
        if not questions:
            return None
        capabilities = self.rendering.capabilities
        askable = [question for question in questions if can_ask(question.method, question.params, capabilities)]
        if askable:
            return self._success(run, self._asking(run, askable))
        return self._success(run, by_hand_result(run, questions, self.notes))

    def _asking(self, run: Run, questions: list[Question]) -> Message:
        requests = {
            key_of(question.id): {"method": question.method, "params": self._asked(question)} for question in questions
        }
        state = self.parts.seal.state(run.id, [question.id for question in questions], self.bound)
        return {"resultType": "input_required", "inputRequests": requests, "requestState": state}

    def _asked(self, question: Question) -> Message:
        """The question's params in this era: there is no `elicitationId` any more."""
        params = as_sent(question, self.notes.get(question.id))
        params.pop("elicitationId", None)
        return params

    def _held_up(self, run: Run) -> Message:
        """Nobody goes on with the run, for long: the way to come back to it, and why."""
        why, self.retry_after = str(self.held.why), self.parts.limits.retry_after
        if "elicitation" not in self.rendering.capabilities:
            return self._success(run, held_result(run, why, self.retry_after))
        state = self.parts.seal.state(run.id, (), self.bound)
        meta = {META + "held_up": why, META + "retry_after": self.retry_after}
        return self._success(run, {"resultType": "input_required", "requestState": state, "_meta": meta})

    def come_back(self) -> Message:
        """For a drain: nothing to answer, only a state to retry with, which another replica will take."""
        run_id = self.extra[-1].run_id if self.extra else self.rendering.stream.run_id
        result = {"resultType": "input_required", "requestState": self.parts.seal.state(run_id, (), self.bound)}
        return success(self.rendering.stream.request_id, self.rendering.shape(result))

    def _success(self, run: Run, result: Message) -> Message:
        return success(self.rendering.stream.request_id, self.rendering.stamped(run.id, self.rendering.shape(result)))

    async def _merge(self, into: str) -> str:
        mine = self.rendering.stream
        extra = Stream(
            id=ids.stream_id(self.parts.noise(12)), run_id=into, request_id=mine.request_id, owner=mine.owner
        )
        self.extra.append(extra)  # before it is stored: whoever leaves meanwhile closes it too
        await self.parts.runs.attach(into, extra)
        return into

    async def leave(self, *, delivery: Delivery | None = None, park: bool = False) -> None:
        """The request is over: answered, or (`park`) closed by its client."""
        for stream in (self.rendering.stream, *self.extra):
            await self.parts.runs.detach(stream, delivery=delivery, park=park and not self.hot)
        if park and self.hot and stream.run_id not in self.parts.followers:
            await self.parts.runs.cancel(stream.run_id, reason="client")


def _turns(item: Event | Glimpse) -> bool:
    return isinstance(item, Event) and (at_rest(item) or item.kind in _TURNS)


def replies_of(params: JSONObject) -> dict[int, Reply]:
    """The answers in a retried call. Unknown keys are ignored (mrtr.mdx, server rules)."""
    responses = params.get("inputResponses")
    if not isinstance(responses, dict):
        return {}
    numbered = ((question_of(key), value) for key, value in responses.items())
    return {number: Reply(result=value) for number, value in numbered if number is not None and isinstance(value, dict)}


async def take_up(parts: Parts, params: JSONObject, bound: Bound, stream: Stream) -> tuple[Stream, int, dict[int, str]]:
    """A retried call: its answers, all in one transaction, then its stream on the run that its state names.

    Returns the stored stream, the event to go on after, and why answers were refused, by question. Raises Refused
    for a state that isn't ours, isn't for this call, or whose run is no longer kept.
    """
    run_id = parts.seal.open(params.get("requestState"), bound)
    run = await parts.runs.run(run_id)
    if run is None:
        raise unknown_state()
    replies, notes = replies_of(params), {}
    if replies:
        rulings = await parts.runs.answer(run_id, replies, by=bound.principal, via="mrtr", reask=False)
        notes = {number: ruling.reason for number, ruling in rulings.items() if ruling.verdict is Verdict.INVALID}
    try:
        return await parts.runs.attach(run_id, stream), run.event_seq, notes
    except UnknownRun:
        raise unknown_state() from None
