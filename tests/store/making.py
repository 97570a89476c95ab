"""Short ways to make what the store's tests need."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Collection, Sequence
from typing import Any

from milepost.core.attempts import Batch, Claim, Claimant, Created, End, EndKind
from milepost.core.outside import Notice
from milepost.core.records import (
    CallContext,
    Entry,
    EntryKind,
    Event,
    EventKind,
    Lane,
    NewEvent,
    NewQuestion,
    NewRun,
    Outcome,
    Principal,
    Reply,
    Stream,
)
from milepost.seams import Store

ANN = Principal(issuer="https://id", subject="ann", client="app", scopes=("book",), person=True)
BOB = Principal(issuer="https://id", subject="bob", client="app", person=True)
TOOL = "rebook"
LEASE = 10.0
DONE = End(EndKind.COMPLETE, outcome=Outcome(result={"content": [{"type": "text", "text": "ok"}]}))

_numbers = itertools.count(1)


def claimant(
    owner: str = "r1",
    *,
    lease: float = LEASE,
    accepts: Collection[tuple[str, int]] = ((TOOL, 1),),
    release: str = "",
) -> Claimant:
    return Claimant(owner, lease, frozenset(accepts), release)


def new_run(**fields: Any) -> NewRun:
    number = next(_numbers)
    call = CallContext(
        tool=fields.get("tool", TOOL),
        arguments={"pnr": "ABC123", "who": "Zoë \ud83d", "seats": [1, 2.5, None, True]},
        request_id=7,
        wire_version="2025-11-25",
        client_info={"name": "test"},
        capabilities={"elicitation": {}},
        principal=fields.pop("principal", ANN),
        trace_id="ab" * 16,
    )
    return NewRun(
        **{
            "id": f"run-{number:032x}", "tool": TOOL, "version": 1, "lane": Lane.WORKFLOW, "call": call,
            "call_key": f"call-{number}", "scope": "ann", "salt": b"0123456789abcdef", "release": "r", **fields,
        }
    )  # fmt: skip


def new_stream(run_id: str, **fields: Any) -> Stream:
    number = next(_numbers)
    return Stream(**{"id": f"stream{number:010d}", "run_id": run_id, "request_id": number, "replica": "r1", **fields})


def first_stream(run_id: str) -> str:
    """The id of the stream that `start` and `ready` open with a run."""
    return f"s{run_id[-15:]}"


async def start(store: Store, owner: str = "r1", *, lease: float = LEASE, **fields: Any) -> Claim:
    """A new run, running under `owner`."""
    new = new_run(**fields)
    created = await store.create(
        new, new_stream(new.id, id=first_stream(new.id), replica=owner), known=(), claim=claimant(owner, lease=lease)
    )
    assert isinstance(created, Created)
    assert created.claim is not None
    return created.claim


async def ready(store: Store, **fields: Any) -> str:
    """A new run that nobody has claimed; its id."""
    new = new_run(**fields)
    created = await store.create(new, new_stream(new.id, id=first_stream(new.id)), known=(), claim=None)
    assert isinstance(created, Created)
    return created.run.id


def entry(n: int, kind: EntryKind = EntryKind.DONE, **fields: Any) -> Entry:
    return Entry(**{"n": n, "kind": kind, "name": "search", "digest": "d1", "value": '{"found":1}', **fields})


def question(number: int, **fields: Any) -> NewQuestion:
    params = {"message": "When?", "requestedSchema": {"type": "object"}}
    return NewQuestion(
        **{"id": number, "method": "elicitation/create", "params": params, "digest": f"q{number}", **fields}
    )


def asking(*numbers: int, **fields: Any) -> Batch:
    """A batch that asks these questions, with their events."""
    return Batch(
        questions=[question(number, **fields) for number in numbers],
        events=[NewEvent(EventKind.QUESTION, {"question": number}) for number in numbers],
    )


async def ask(store: Store, claim: Claim, *numbers: int, **fields: Any) -> str:
    """Ask, and suspend until an answer comes; the run's id."""
    await store.append(claim.fence, asking(*numbers, **fields), lease=LEASE)
    await store.settle(claim.fence, End(EndKind.SUSPEND, claim.run.wake_seq, frozenset(numbers)))
    return claim.run.id


async def waiting(store: Store, *numbers: int, **fields: Any) -> str:
    """A run that waits for answers to these questions (default: one); its id."""
    return await ask(store, await start(store), *(numbers or (1,)), **fields)


def accept(value: str = "monday") -> Reply:
    return Reply(result={"action": "accept", "content": {"day": value}})


async def claim_one(store: Store, owner: str = "r1", **fields: Any) -> Claim | None:
    claims = await store.claim(claimant(owner, **fields), limit=1, takeovers=8)
    return claims[0] if claims else None


async def state_of(store: Store, run_id: str) -> str:
    loaded = await store.load(run_id)
    assert loaded is not None
    return loaded.run.state.value


async def told(store: Store, run_id: str, kind: EventKind | None = None) -> Sequence[Event]:
    """The run's events, all or of one kind; checks that their numbers have no gap."""
    events = await store.events(run_id, after=0)
    assert [event.n for event in events] == list(range(1, len(events) + 1))
    return [event for event in events if kind is None or event.kind is kind]


class Notices:
    """The runs that a watch was told of; waits, bounded, for the next notice."""

    def __init__(self, store: Store) -> None:
        self.seen: list[Collection[str] | None] = []
        self._came = asyncio.Event()
        self.stop: Callable[[], None] = store.watch(self._hear)

    def _hear(self, notice: Notice) -> None:
        self.seen.append(notice.runs)
        self._came.set()

    async def next(self) -> Collection[str] | None:
        async with asyncio.timeout(10):
            while not self.seen:
                self._came.clear()
                await self._came.wait()
        return self.seen.pop(0)
