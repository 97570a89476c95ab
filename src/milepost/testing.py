"""For the tests of those who write workflows: call one, answer its questions, restart under it, look at what it did.

    async with workbench(mcp) as bench:
        trial = await bench.call("change_itinerary", pnr="X1")
        assert (await trial.question()).params["message"] == "When do you want to fly?"
        await bench.restart()                       # from here on another process goes on with it
        await trial.answer(day="2026-12-01")
        assert await trial.text() == "booked"
        assert await trial.steps() == {"rebook": 1}

It is the real engine over a real store in a temporary folder; only the client is played. Every wait is bounded.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from milepost.app import Milepost
from milepost.core.attempts import Loaded
from milepost.core.errors import CallerError
from milepost.core.outside import Verdict
from milepost.core.records import CallContext, EntryKind, Outcome, Principal, Question, Reply, Stream
from milepost.core.states import FINAL, RunState
from milepost.engine.runs import Runs

T = TypeVar("T")

__all__ = ["Trial", "Workbench", "workbench"]

TESTER: Final = Principal(subject="tester")
"""Who calls. No person in the sense of "same call, same run": each call of a workbench is a run of its own."""

_AT_REST = FINAL | {RunState.WAITING, RunState.STUCK, RunState.PARKED}


class Workbench:
    """A server with its engine, and a store that outlives restarts."""

    def __init__(self, make: Callable[[], Milepost], patience: float) -> None:
        self._make = make
        self._stack = AsyncExitStack()
        self._runs: Runs | None = None
        self.patience = patience
        """Seconds that any wait may take."""

    @property
    def runs(self) -> Runs:
        """The engine's front door, for what this class has no words for."""
        if self._runs is None:
            raise RuntimeError("the workbench is closed")
        return self._runs

    async def start(self) -> None:
        self._runs = (await self._stack.enter_async_context(self._make().running())).runs

    async def stop(self) -> None:
        self._runs = None
        await self._stack.aclose()

    async def restart(self) -> None:
        """Stop and start anew: every unfinished run is replayed from its journal when it goes on."""
        await self.stop()
        await self.start()

    async def call(self, tool: str, /, *, capabilities: Mapping[str, Any] | None = None, **arguments: Any) -> Trial:
        """Call a workflow. `capabilities`: what the client declares (default: elicitation, sampling and roots)."""
        declared: dict[str, Any] = {"elicitation": {"form": {}, "url": {}}, "sampling": {}, "roots": {}}
        call = CallContext(
            tool,
            arguments,
            1,
            "2026-07-28",
            client_info={"name": "workbench", "version": "1"},
            capabilities=declared if capabilities is None else capabilities,
            principal=TESTER,
            trace_id=secrets.token_hex(16),
        )
        stream = Stream(secrets.token_urlsafe(12), "", 1, owner=TESTER)
        return Trial(self, (await self.runs.call(call, stream)).run_id)


class Trial:
    """One run, and the person who answers it."""

    def __init__(self, bench: Workbench, run_id: str) -> None:
        self._bench = bench
        self.run_id = run_id

    async def loaded(self) -> Loaded:
        """The run with its journal and questions, as stored."""
        loaded = await self._bench.runs.load(self.run_id)
        assert loaded is not None  # noqa: S101  it was created by us
        return loaded

    async def rest(self) -> Loaded:
        """Wait until it is done, waits for an answer, or needs a person. Raises TimeoutError."""

        async def settled() -> Loaded:
            with self._bench.runs.feed(self.run_id) as feed:
                while True:
                    loaded = await self.loaded()
                    if loaded.run.state in _AT_REST:
                        return loaded
                    await feed.next(0.2)

        return await self._within(settled(), "come to rest")

    async def question(self) -> Question:
        """Its open question (the first of several). Raises CallerError where it ended without asking."""
        loaded = await self.rest()
        waiting = await self._bench.runs.open_questions(self.run_id)
        if not waiting:
            raise CallerError(f"it asks nothing: it is {loaded.run.state} ({loaded.run.reason or loaded.run.outcome})")
        return waiting[0]

    async def answer(self, **fields: Any) -> None:
        """Accept the open question with these fields. Raises CallerError if the engine refuses them."""
        await self.reply({"action": "accept", "content": fields})

    async def decline(self) -> None:
        await self.reply({"action": "decline"})

    async def dismiss(self) -> None:
        """Close the open question without an answer (`cancel` of the protocol)."""
        await self.reply({"action": "cancel"})

    async def reply(self, result: Mapping[str, Any] | None = None, error: Mapping[str, Any] | None = None) -> None:
        """Answer the open question with a whole result (sampling, roots), or with an error of the client."""
        question = await self.question()
        replies = {question.id: Reply(result, error)}
        rulings = await self._bench.runs.answer(self.run_id, replies, by=TESTER, via="test", reask=False)
        ruling = rulings[question.id]
        if ruling.verdict not in (Verdict.ACCEPTED, Verdict.REPEATED):
            raise CallerError(f"the answer was not taken: {ruling.reason}")

    async def cancel(self) -> None:
        """Cancel the run; it may clean up."""
        await self._bench.runs.cancel(self.run_id, reason="test")

    async def outcome(self) -> Outcome:
        """Wait for its end. Raises CallerError if it waits for an answer or needs a person instead."""

        async def ended() -> Outcome:
            with self._bench.runs.feed(self.run_id) as feed:
                while True:
                    run = (await self.loaded()).run
                    if run.outcome is not None:
                        return Outcome(**json.loads(run.outcome))
                    if run.state in (RunState.WAITING, RunState.STUCK, RunState.PARKED):
                        raise CallerError(
                            f"it is not done: it is {run.state} ({run.reason or 'see its open questions'})"
                        )
                    await feed.next(0.2)

        return await self._within(ended(), "end")

    async def text(self) -> str:
        """The text of its result."""
        outcome = await self.outcome()
        if outcome.result is None:
            raise CallerError(f"it ended with an error: {outcome.error}")
        return "\n".join(part["text"] for part in outcome.result.get("content", ()) if part.get("type") == "text")

    async def asked(self) -> list[str]:
        """The texts of all its questions so far, in order."""
        return [str(q.params.get("message", q.method)) for q in (await self.loaded()).questions]

    async def steps(self) -> dict[str, int]:
        """How often each step was recorded as done."""
        done = [entry.name for entry in (await self.loaded()).entries if entry.kind is EntryKind.DONE]
        return dict(Counter(done))

    async def _within(self, work: Awaitable[T], what: str) -> T:
        try:
            return await asyncio.wait_for(work, self._bench.patience)
        except TimeoutError:
            state = (await self.loaded()).run.state
            raise TimeoutError(f"it did not {what} within {self._bench.patience:g} s: it is {state}") from None


@asynccontextmanager
async def workbench(server: object, *, patience: float = 10.0, **flags: Any) -> AsyncIterator[Workbench]:
    """A running server over a store in a temporary folder.

    `server`: as for `Milepost`. `flags`: single settings, such as `engine={"quiet": 0.005}`.
    """
    with tempfile.TemporaryDirectory(prefix="milepost-") as folder:
        url = f"sqlite:///{Path(folder) / 'test.db'}"
        bench = Workbench(lambda: Milepost(server, store=url, **flags), patience)
        await bench.start()
        try:
            yield bench
        finally:
            await bench.stop()
