"""The seams: what the engine needs from a store, a clock and the SDK's kernel.

Everything that differs between SQLite and PostgreSQL, between real and test time, and between SDK
releases stands behind these small Protocols. What goes through them are values of `core`: an attempt's
(`core.attempts`), everybody else's (`core.outside`), and what is kept (`core.records`). The contract of the
store is executable: `tests/store/contract.py` runs against every store, and a store that passes it is a store.

Rules that hold for every verb of a store:

- Each verb is one transaction. It returns only after that transaction is durable (COMMIT has returned),
  or raises and has done nothing.
- Every write to a run locks the run row first; the lock order is run, question, events.
- Durations go in (`lease`, `expires_in`: seconds), timestamps come out: which clock leases run on is the
  store's own affair (the database's on PostgreSQL, boot time on SQLite).
- A write that names an attempt (`Fence`) and finds it gone raises `Fenced` and has done nothing.
- Every transition follows `core.states.TRANSITIONS`.
- An unknown commit outcome is resolved inside the verb, on a new connection, by the proof that the verb
  carries (attempt id, run id, question and digest), never by guessing.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from milepost.core.attempts import Appended, Batch, Claim, Claimant, Created, End, Fence, Loaded
from milepost.core.outside import Action, Find, Finding, Notice, Swept, Verdict
from milepost.core.records import (
    CallContext,
    Delivery,
    Event,
    JSONObject,
    NewRun,
    Outcome,
    Principal,
    Replica,
    Reply,
    Rival,
    Run,
    Session,
    Stream,
)
from milepost.core.versions import Given, Shares


class Clock(Protocol):
    """Time, injected. Tests move it; nothing else in core, engine or store asks the system for time."""

    def wall(self) -> float:
        """UTC seconds since the epoch. May jump."""
        ...

    def monotonic(self) -> float:
        """Seconds that never go back, for waits inside this process."""
        ...

    def boot(self) -> float:
        """Seconds since this machine booted, equal for all its processes, running on while one is stopped."""
        ...

    def boot_id(self) -> str:
        """Names this boot: `boot()` values of two boots can't be compared."""
        ...


# --- the store: runs ----------------------------------------------------------------------------


class RunStore(Protocol):
    """Runs, their journals, questions and events: twelve verbs."""

    async def create(
        self, new: NewRun, stream: Stream, *, known: Collection[str], claim: Claimant | None, full: bool = False
    ) -> Created | Sequence[Rival]:
        """Create `new` (ready) with its first stream, unless a rival that the caller doesn't know exists.

        A rival is a run with the same `call_key` and `scope` that is unfinished, or finished with a
        delivery that is not confirmed. Rivals not in `known` are returned and nothing is created: the
        caller decides (`core.same_call`) and calls again. A run with the same `call_id` is the only rival, finished,
        confirmed or known: there is never a second one. A run with `new.id` that exists already is
        returned as created (`claim` None): this was a repetition after an unknown outcome.
        With `claim`, the new run is running under that claimant at once. With `full` there is no room for a new run:
        where one would be created, nothing is, and no rival is returned (an empty sequence).
        """
        ...

    async def claim(self, claimant: Claimant, *, limit: int, takeovers: int) -> Sequence[Claim]:
        """Claim up to `limit` runs that are due, of which up to `takeovers` from owners whose lease ended.

        Due: `ready` and `cancelling` of an accepted (tool, version) whose `next_at` is unset or past, and
        `running` ones (any hot one; accepted workflows) whose lease is over or whose owner is known gone.
        """
        ...

    async def append(self, fence: Fence, batch: Batch, *, lease: float) -> Appended:
        """Write a batch, extend the lease, reset the crash count, account working time. Raises Fenced."""
        ...

    async def settle(self, fence: Fence, end: End) -> Run:
        """End the attempt (see End); returns the run as it now is. Raises Fenced."""
        ...

    def extend(self, owner: str, attempts: Sequence[Fence], *, lease: float) -> Mapping[str, Appended]:
        """Heartbeat: extend the leases of those attempts in one write, and the replica's own beat.

        Synchronous and safe to call from any thread (the heartbeat has one of its own, so that a blocked
        event loop loses no lease). Returns, by attempt id, those that still hold; the rest are fenced.
        """
        ...

    async def answer(
        self, run_id: str, replies: Mapping[int, Reply], *, by: Principal, via: str
    ) -> Mapping[int, Verdict]:
        """Record replies in one transaction with one wake. Each accepted one writes a CLOSED event."""
        ...

    async def steer(self, run_id: str, action: Action) -> Run | None:
        """Do `action`; returns the run as it now is. An action that no longer fits changes nothing. None: unknown."""
        ...

    async def sweep(self, *, limit: int) -> Swept:
        """Fire due timers: expire questions (their run becomes ready), wake retry timers, expire parked runs."""
        ...

    async def load(self, run_id: str) -> Loaded | None:
        """The run with its journal and questions, in order."""
        ...

    async def value(self, run_id: str, n: int) -> str:
        """The value of journal entry `n` (JSON text)."""
        ...

    async def events(self, run_id: str, *, after: int, limit: int = 500) -> Sequence[Event]:
        """Events with number above `after`, in order, without gaps."""
        ...

    async def find(self, query: Find) -> Sequence[Run]:
        """List runs."""
        ...


# --- the store: sessions and streams ------------------------------------------------------------


class WireStore(Protocol):
    """Sessions and streams: six verbs."""

    async def save_session(self, session: Session, *, cap: int) -> bool:
        """Insert or update. False: new, and `cap` open sessions exist already (nothing was written)."""
        ...

    async def session(self, session_id: str) -> Session | None:
        """The session, unless it never was, was ended, or is past `Retention.idle`/`lifetime` (see sweep)."""
        ...

    async def end_session(self, session_id: str) -> None:
        """Mark it ended: from now on it is unknown."""
        ...

    async def open_stream(self, stream: Stream) -> Stream:
        """Insert a stream of an existing run, or take up (set `replica`) the one with this id.

        Within one session a request id names one stream: if another exists already, that one is returned.
        """
        ...

    async def stream(self, stream_id: str) -> Stream | None: ...

    async def stream_of_request(self, session: str, request_id: int | str) -> Stream | None:
        """The one stream that a request id names within a session."""
        ...

    async def close_stream(self, stream_id: str, *, delivery: Delivery | None) -> None:
        """Its connection is gone: clear `replica`, set `detached_at`; with `delivery`, note it on the run (never
        back)."""
        ...


class Store(RunStore, WireStore, Protocol):
    """One store: both halves, and its life."""

    async def open(self) -> None:
        """Connect, migrate (only ever adding), check. Raises StoreTooNew, StoreUnavailable."""
        ...

    async def aclose(self) -> None:
        """Finish what was accepted, then let go. Idempotent."""
        ...

    async def join(self, replica: str, *, release: str = "", accepts: Collection[tuple[str, int]] = ()) -> None:
        """Register this process as a replica: from now on its leases can be told from a dead one's.

        `release` and `accepts` are shown to the others (`replicas`); what it claims it says at each claim.
        """
        ...

    async def replicas(self) -> Sequence[Replica]:
        """The replicas that have joined and are not known to be gone."""
        ...

    async def given(self) -> Given:
        """Which release new runs are given to: by tool, or `EVERY_TOOL`, each release's weight. Empty: to none."""
        ...

    async def give(self, tool: str, shares: Shares) -> None:
        """Give new runs of `tool` (or `EVERY_TOOL`) to these releases, in place of what was said of it before.

        Weights are above 0; no shares at all take the tool's entry away. Runs that exist already stay as they are.
        """
        ...

    async def leave(self, replica: str) -> None:
        """The replica ends in good order; its streams are detached."""
        ...

    async def check(self) -> Sequence[Finding]:
        """What it is, what it holds, and what about it puts the promises at risk."""
        ...

    def healthy(self) -> str | None:
        """None, or why nothing can be written right now (for `/readyz`)."""
        ...

    def secret(self, name: str) -> bytes:
        """32 random bytes, made once per store and name, equal on every replica of it. After `open`."""
        ...

    def watch(
        self, listener: Callable[[Notice], None], watched: Callable[[], Collection[str]] = tuple
    ) -> Callable[[], None]:
        """Call `listener` on the event loop after commits that changed runs, by other processes too.

        `watched` names the runs that the listener follows at the moment: a store that looks for changes by itself,
        because notices may be lost, looks at these. Returns the function that ends the watch.
        """
        ...

    def glimpse(self, run_id: str, text: str) -> None:
        """Show the watchers of a run in other processes something that is not kept: the latest wins, any may be lost.

        At most some hundred bytes. A store that can't do so shows nothing.
        """
        ...

    def on_doubt(self, listener: Callable[[float], None]) -> None:
        """Call `listener(boot time)` when, from that time on, others may take this replica for gone although it lives.

        From any thread. The doubt ends with the next `extend` that succeeds. A store whose replicas can't be
        mistaken never calls.
        """
        ...


# --- the scheduler ------------------------------------------------------------------------------


class Backend(Protocol):
    """Decides when an attempt of a run is made, and where. An attempt does not know who scheduled it.

    Whatever schedules, the journal and the answers stay in the store, and a claim still fences.
    """

    def start(self) -> None:
        """Begin to look for work. Needs a running loop."""
        ...

    async def drain(self) -> None:
        """Take no more; let steps in flight end, up to the drain limit; give every run back. Idempotent."""
        ...

    def has_room(self) -> bool:
        """Whether another attempt may begin here at once. Where nobody counts them: always."""
        ...

    def claimant(self) -> Claimant | None:
        """Who may claim a run while it is created, to run it here at once; None: leave it ready and `wake`."""
        ...

    def begin(self, claim: Claim, loaded: Loaded | None = None) -> None:
        """Run an attempt of a claimed run, in a task of its own. `loaded`: its journal, where it is known."""
        ...

    def wake(self, run_id: str) -> None:
        """The run may be claimed now."""
        ...

    def wake_at(self, run_id: str, seconds: float) -> None:
        """A timer of the run is due in so many seconds."""
        ...

    def elsewhere(self) -> None:
        """Some other process changed something."""
        ...


# --- the kernel ---------------------------------------------------------------------------------


class Channel(Protocol):
    """The way back to the client that the engine lends to a running tool."""

    async def ask(self, method: str, params: JSONObject) -> JSONObject:
        """Ask the client (elicitation/create, sampling/createMessage, roots/list) and return its result.

        Raises PeerError with the client's error, QuestionExpired, or an engine signal.
        """
        ...

    async def notify(self, method: str, params: JSONObject | None) -> None: ...

    async def progress(self, progress: float, total: float | None, message: str | None) -> None: ...


class Kernel(Protocol):
    """The SDK, seen from the engine: it runs a tool's function once and shapes what came of it."""

    async def execute(self, call: CallContext, channel: Channel) -> Outcome:
        """Run the tool in a kernel of the handshake era with `channel` behind its context.

        Returns what the kernel made of it. Engine signals pass through untouched.
        """
        ...
