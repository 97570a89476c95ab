"""Steps: run once, recorded, and then read (DESIGN section 3; HAZARDS A1, C2, C3).

A step works in a task of the attempt's; what its author awaits is only a view of it. It is at-least-once
until it is recorded and never again after. Tries and their times are journal entries, so a restart resets
neither. A step cut in a thread is not over before the thread is.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import structlog

from milepost.core.codec import ResultCodec
from milepost.core.digest import Arguments, digest
from milepost.core.errors import StepError, StepTimeout, StepUnknown, Unstorable
from milepost.core.records import Entry, EntryKind
from milepost.core.replay import Address, StepRecord
from milepost.core.spec import StepSpec
from milepost.engine.attempt import Attempt
from milepost.engine.context import KEY, STEP, StepInfo, branch

log = structlog.get_logger("milepost.engine")

_ERRORS = {"StepTimeout": StepTimeout, "StepUnknown": StepUnknown}


@dataclass(slots=True)
class StepFunction:
    """A function that was declared a step, with what is needed to record its calls."""

    function: Callable[..., Any]
    spec: StepSpec
    arguments: Arguments
    codec: ResultCodec
    is_async: bool

    @classmethod
    def of(cls, function: Callable[..., Any], spec: StepSpec) -> StepFunction:
        is_async = inspect.iscoroutinefunction(function)
        return cls(function, spec, Arguments(function), ResultCodec(function, spec.name), is_async)


class _TimedOut(Exception):
    """A try ran over the step's limit. `unstoppable`: it went on to its end all the same."""

    def __init__(self, limit: float, *, unstoppable: bool) -> None:
        super().__init__(f"took longer than its limit of {limit:g} s")
        self.unstoppable = unstoppable


async def call_step(attempt: Attempt, step: StepFunction, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The step's value, from the journal or by running it. Raises StepError, Unstorable, engine signals."""
    attempt.ensure_open()
    attempt.know_step(step.spec.name, step.function)
    run = attempt.record
    passed = step.arguments.canonical(args, kwargs)
    address = attempt.replay.address(step.spec.name, digest(run.salt, step.spec.name, passed), KEY.get(), branch())
    record = attempt.replay.reach_step(address)
    attempt.waits.reached(address)
    if record is not None and record.final is not None:
        return await _recorded(attempt, step, record.final)
    await attempt.admit(address, is_step=True)
    work = _Work(attempt, step, address, record or StepRecord(), lambda: step.function(*args, **kwargs))
    task = asyncio.get_running_loop().create_task(work.run())
    attempt.start_step(task)
    return await asyncio.shield(task)


async def _recorded(attempt: Attempt, step: StepFunction, entry: Entry) -> Any:
    text = entry.value if entry.value is not None else await attempt.value(entry.n)
    if entry.kind is EntryKind.FAILED:
        raise _revive(step.spec.name, text)
    return step.codec.decode(text)


def _revive(name: str, text: str) -> Exception:
    """The failure as it was recorded; what is raised live is made the same way."""
    recorded = json.loads(text)
    kind, message = recorded["kind"], recorded["message"]
    if kind == "Unstorable":
        return Unstorable(message)
    return _ERRORS.get(kind, StepError)(name, kind, message)


@dataclass(slots=True)
class _Work:
    """One call of a step that the journal does not answer."""

    attempt: Attempt
    step: StepFunction
    address: Address
    record: StepRecord
    call: Callable[[], Any]

    async def run(self) -> Any:
        await self._begin()
        tries = len(self.record.retries)
        if tries:
            await self._wait_until(float(json.loads(self.record.retries[-1].value or "{}").get("due", 0.0)))
        while True:
            tries += 1
            try:
                text, value = await self._once(tries)
            except Exception as error:
                if not self._may_retry(error, tries):
                    await self._fail(error)
                await self._note_retry(error, tries)
            else:
                return await self._done(text, value)

    async def _begin(self) -> None:
        """Note that the step begins. Past the lease's sure end nothing begins before a write has succeeded (B1)."""
        if not self.record.begun:
            self._entry(EntryKind.BEGUN)
        if self.attempt.pen.fresh():
            self.attempt.pen.jot()
        else:
            await self.attempt.write()

    async def _once(self, tries: int) -> tuple[str, Any]:
        """One try; returns the value as JSON text, and as read back from it."""
        token = STEP.set(StepInfo(self.address.name, tries, self._idempotency_key))
        try:
            value = await (self._in_loop() if self.step.is_async else self._in_thread())
        finally:
            STEP.reset(token)
        text, stored = self.step.codec.encode(value)
        self._check_size(text)
        return text, stored

    def _idempotency_key(self) -> str:
        run = self.attempt.record
        return digest(run.salt, "idempotency", run.id, *map(str, self.address))

    def _check_size(self, text: str) -> None:
        limit = self.attempt.tuning.max_value
        if len(text) > limit:
            raise Unstorable(
                f"step {self.address.name!r} returned {len(text)} bytes; the limit is {limit} (setting max_value). "
                "Store the data elsewhere and return a reference to it."
            )

    async def _in_loop(self) -> Any:
        limit = self.step.spec.timeout
        try:
            async with asyncio.timeout(limit) as clock:
                return await self.call()
        except TimeoutError as error:
            if clock.expired():
                raise _TimedOut(limit, unstoppable=False) from error
            raise

    async def _in_thread(self) -> Any:
        limit = self.step.spec.timeout
        task: asyncio.Task[Any] = asyncio.get_running_loop().create_task(_to_thread(self.call))
        done, _ = await asyncio.wait({task}, timeout=limit)
        if not done:
            log.warning("a step in a thread is over its limit and can't be stopped", step=self.address.name)
            await asyncio.wait({task})
            task.exception()
            raise _TimedOut(limit, unstoppable=True)
        return task.result()

    def _may_retry(self, error: Exception, tries: int) -> bool:
        spec = self.step.spec
        if isinstance(error, Unstorable) or tries > spec.retries:
            return False
        return spec.idempotent or not isinstance(error, _TimedOut)

    async def _note_retry(self, error: Exception, tries: int) -> None:
        """Record that a try failed and when the next is due, then wait for that."""
        spec, tuning = self.step.spec, self.attempt.tuning
        pause = min(tuning.backoff_limit, spec.backoff * 2 ** (tries - 1))
        pause *= random.uniform(0.5, 1.0)  # noqa: S311 - jitter, not a secret
        due = self.attempt.wall() + pause
        told = {"try": tries, "kind": type(error).__name__, "message": str(error), "due": due}
        self._entry(EntryKind.RETRY, json.dumps(told))
        await self.attempt.write()
        await self._wait_until(due)

    async def _wait_until(self, due: float) -> None:
        pause = due - self.attempt.wall()
        if pause > 0:
            await self.attempt.waits.pause(pause)
            self.attempt.ensure_open()

    async def _fail(self, error: Exception) -> None:
        kind, message = type(error).__name__, str(error)
        if isinstance(error, _TimedOut):
            kind = "StepUnknown" if error.unstoppable else "StepTimeout"
        text = json.dumps({"kind": kind, "message": message})
        self._entry(EntryKind.FAILED, text)
        await self.attempt.write()
        self.attempt.step_finished()
        raise _revive(self.address.name, text) from error

    async def _done(self, text: str, value: Any) -> Any:
        self._entry(EntryKind.DONE, text)
        await self.attempt.write()
        self.attempt.step_finished()
        return value

    def _entry(self, kind: EntryKind, value: str | None = None) -> None:
        name, hashed, key, occurrence = self.address
        self.attempt.pen.entry(kind, name, digest=hashed, key=key, occurrence=occurrence, value=value)


async def _to_thread(call: Callable[[], Any]) -> Any:
    return await asyncio.to_thread(call)


def plain_call(step: StepFunction, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Awaitable[Any]:
    """Outside a run, and inside another step, a step is a plain call."""
    if step.is_async:
        result: Awaitable[Any] = step.function(*args, **kwargs)
        return result
    return asyncio.to_thread(step.function, *args, **kwargs)
