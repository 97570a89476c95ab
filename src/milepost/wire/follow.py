"""Following a run: its events go out on one stream, as they come, until the stream has its response.

The same for a socket and for a pipe: both are a `Sink`. Who follows says what to do when the client leaves;
here nothing is decided, only told. Nothing is ever lost by stopping: the events are in the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import Enum
from typing import Any, Protocol

import anyio

from milepost.core import ids
from milepost.core.records import Delivery, Event, EventKind, Lane, Outcome, Question, Run, Stream
from milepost.core.states import RunState
from milepost.engine.hub import Glimpse
from milepost.wire.by_hand import by_hand_result, stuck_result
from milepost.wire.held import HeldUp, held_result
from milepost.wire.http import Exchange
from milepost.wire.parts import Parts
from milepost.wire.rpc import Message, success
from milepost.wire.streams import COMMENT, Rendering, at_rest, can_ask, frame

_PASSES = 5
"""Of the event loop, from a socket's end to whoever waits for it: read, close, wake, return, and one to spare."""


class Sink(Protocol):
    """Where a stream's messages go."""

    async def say(self, message: Message, event_id: str | None = None) -> None: ...

    async def beat(self) -> None:
        """A sign of life where there is nothing to say."""
        ...


class SseSink:
    """An HTTP event stream."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    async def say(self, message: Message, event_id: str | None = None) -> None:
        await self._exchange.put(frame(message, event_id))

    async def beat(self) -> None:
        await self._exchange.put(COMMENT)


class Ended(Enum):
    """Why a socket's story ended."""

    TOLD = "told"
    GONE = "gone"
    """The client left."""
    CLOSED = "closed"
    """We ended it: drain, a long wait, or the tool's wish. The client comes back."""


class Hold:
    """Holds one open response while its story is told; ends at once when the client leaves or we say so."""

    def __init__(self, parts: Parts, gone: Callable[[], Awaitable[None]], stream_id: str) -> None:
        """`gone` returns when the client has left, or no longer wants this request."""
        self._parts = parts
        self._gone = gone
        self._stream_id = stream_id
        self._scope = anyio.CancelScope()
        self._why = Ended.TOLD

    async def tell(self, story: Any, *, within: float | None = None) -> Ended:
        """Await `story`, for at most `within` seconds. Raises what the story raises."""
        failed: list[Exception] = []
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch)
            try:
                await self._tell(story, within)
            except Exception as exc:  # raised below, for a task group would wrap it
                failed.append(exc)
            tasks.cancel_scope.cancel()
        if failed:
            raise failed[0]
        return self._why

    async def _tell(self, story: Any, within: float | None) -> None:
        with self._parts.traffic.stream(self.close), self._parts.watching(self._stream_id, self.close), self._scope:
            with anyio.move_on_after(within) as limit:
                await story
                await _notice_departures()
            if limit.cancelled_caught:
                self._why = Ended.CLOSED

    def close(self) -> None:
        """End it from our side."""
        self._stop(Ended.CLOSED)

    async def _watch(self) -> None:
        await self._gone()
        self._stop(Ended.GONE)

    def _stop(self, why: Ended) -> None:
        if self._why is Ended.TOLD:
            self._why = why
            self._scope.cancel()


async def _notice_departures() -> None:
    """Let the loop take in what its sockets already say.

    A process that was stopped for a while finds its client's departure and the run's result at the same moment; what
    was told to nobody must not count as sent, or the client's next call of the same session would start a new run.
    """
    for _ in range(_PASSES):
        await asyncio.sleep(0)


async def locate(parts: Parts, stream: Stream, n: int) -> tuple[Run | None, int]:
    """The run and event number that `<stream>.<n>` names, through mergers (a merged run's events count first)."""
    run: Run | None = await parts.runs.run(stream.run_id)
    while run is not None and run.merged_into is not None and n >= run.event_seq:
        n -= run.event_seq
        run = await parts.runs.run(run.merged_into)
    return run, n


class Follower:
    """One request's stream over a run of the handshake era, or of a pipe that speaks it."""

    def __init__(self, parts: Parts, rendering: Rendering, sink: Sink) -> None:
        self._parts = parts
        self._rendering = rendering
        self._sink = sink
        self._extra: list[Stream] = []
        """Streams opened on runs that this one was merged into, so that they count as watched."""
        self.notes: Mapping[int, str] = {}
        """Why answers of this request were refused, by question."""
        self.done = False
        """The response has been said."""
        self.final = False
        """That response was the run's result."""
        self.held = HeldUp(parts)

    @property
    def rendering(self) -> Rendering:
        return self._rendering

    async def follow(self, run_id: str, after: int) -> None:
        """Tell the run's events after number `after`, up to the response."""
        if after:
            run = await self._parts.runs.run(run_id)
            if run is not None and run.state in (RunState.WAITING, RunState.STUCK) and run.event_seq == after:
                await self._rest(run, ids.event_id(self._rendering.stream.id, self._rendering.offset + after))
        into: str | None = run_id
        while into is not None:
            session = self._rendering.stream.session
            with self._parts.following(into), self._parts.floor.taken(self, session, into):
                into, after = await self._one_run(into, after), 0

    async def _one_run(self, run_id: str, after: int) -> str | None:
        """Tell one run; the id of the run that it was merged into, if it was."""
        with self._parts.runs.feed(run_id, after=after) as feed:
            while not self.done:
                item = await feed.next(timeout=self._parts.limits.heartbeat)
                if isinstance(item, Event):
                    if item.kind is EventKind.MERGED:
                        return await self._merge(run_id, item.body["into"])
                    await self._event(item)
                elif isinstance(item, Glimpse):
                    await self._say(self._rendering.glimpse(item))
                elif feed.over:
                    break
                else:
                    await self._beat(run_id)
        return None

    async def _event(self, event: Event) -> None:
        if at_rest(event):
            run = await self._parts.runs.run(event.run_id)
            if run is not None and (run.lane is Lane.HOT or run.state == event.body["state"]):
                await self._rest(run, self._rendering.event_id(event))
            return
        questions: Sequence[Question] = ()
        if event.kind is EventKind.QUESTION and self._asks(event.run_id):
            questions = await self._parts.runs.open_questions(event.run_id)
        message = self._rendering.message(event, {question.id: question for question in questions})
        if message is not None:
            await self._sink.say(message, self._rendering.event_id(event))
        if event.kind is EventKind.RESULT:
            self.done = self.final = True

    # --- who asks (see floor) --------------------------------------------------------------------

    @property
    def stream_id(self) -> str:
        return self._rendering.stream.id

    def _asks(self, run_id: str) -> bool:
        return self._parts.floor.held_by(self, self._rendering.stream.session, run_id)

    async def step_back(self) -> None:
        """A newer stream of the session asks from now on."""
        for message in self._rendering.withdrawals("asked on a newer stream"):
            await self._sink.say(message)

    async def step_forward(self, run_id: str) -> None:
        """The newer stream is gone: ask here what is open. Without event ids, for the client's place is further on."""
        questions = {question.id: question for question in await self._parts.runs.open_questions(run_id)}
        asked = await self._parts.store.events(run_id, after=0)
        latest = {event.body["question"]: event for event in asked if event.kind is EventKind.QUESTION}
        for event in latest.values():
            message = self._rendering.message(event, questions)
            if message is not None:
                await self._sink.say(message)

    # --- standing still ----------------------------------------------------------------------------

    async def _rest(self, run: Run, event_id: str) -> None:
        """The run waits or is stuck. Where this client can't be asked, it is told how else to answer."""
        if run.state is RunState.STUCK:
            await self._respond(run, event_id, stuck_result(run))
            return
        questions = await self._parts.runs.open_questions(run.id)
        capabilities = self._rendering.capabilities
        if questions and not any(can_ask(q.method, q.params, capabilities) for q in questions):
            await self._respond(run, event_id, by_hand_result(run, questions, self.notes))

    async def _respond(self, run: Run, event_id: str | None, result: Message) -> None:
        """End this request with `result`, although the run isn't finished."""
        stamped = self._rendering.stamped(run.id, self._rendering.shape(result))
        await self._sink.say(success(self._rendering.stream.request_id, stamped), event_id)
        self.done = True

    async def _merge(self, run_id: str, into: str) -> str:
        """Go on with another run: this stream's questions of the old one are taken back."""
        for message in self._rendering.withdrawals("the call goes on with an earlier run"):
            await self._sink.say(message)
        old = await self._parts.runs.run(run_id)
        if old is not None:
            self._rendering = self._rendering.onto(old)
        mine = self._rendering.stream
        extra = Stream(
            id=ids.stream_id(self._parts.noise(12)), run_id=into, request_id=mine.request_id, owner=mine.owner
        )
        self._extra.append(extra)  # before it is stored: whoever leaves meanwhile closes it too
        await self._parts.runs.attach(into, extra)
        return into

    async def _beat(self, run_id: str) -> None:
        why = await self.held.look(run_id)
        if why is not None and self.held.for_long and "elicitation" not in self._rendering.capabilities:
            await self._send_away(run_id, why)
            return
        message = self._rendering.progress.beat(why)
        await (self._sink.beat() if message is None else self._sink.say(message))

    async def _send_away(self, run_id: str, why: str) -> None:
        run = await self._parts.runs.run(run_id)
        if run is not None:
            await self._respond(run, None, held_result(run, why, self._parts.limits.retry_after))

    async def _say(self, message: Message | None) -> None:
        if message is not None:
            await self._sink.say(message)

    async def give_up(self, outcome: Outcome) -> None:
        """End this request alone; its run goes on for others who follow it."""
        if not self.done:
            self.done = True
            await self._sink.say({"jsonrpc": "2.0", "id": self._rendering.stream.request_id, "error": outcome.error})

    async def leave(self, *, delivery: Delivery | None = None) -> None:
        """The connection is gone, or the response was said (`delivery`)."""
        if delivery is None and self._rendering.stream.id in self._parts.watched:
            return  # another socket shows the same stream
        for stream in (self._rendering.stream, *self._extra):
            await self._parts.runs.detach(stream, delivery=delivery)
