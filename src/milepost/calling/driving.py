"""One client's work from its start to its end, and what Ctrl-C does to it.

On a terminal, Ctrl-C asks: cancel the call, leave it waiting on the server, or go on? A second one leaves it at once.
Without a terminal SIGINT leaves it. SIGTERM and a terminal that is closed leave it, always: nobody has said that the
work is unwanted.
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

import anyio
from anyio.abc import TaskGroup
from mcp_types import LoggingMessageNotificationParams
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from rich.text import Text

from milepost.calling.answers import Answers
from milepost.calling.desk import Desk
from milepost.calling.outcomes import Code, Outcome, of_error
from milepost.calling.person import Person
from milepost.calling.screen import Screen
from milepost.calling.terminal import Hangup, Terminal
from milepost.client import Client, Policy
from milepost.client.events import Event, Reader, Resumed, Sent

SHORT: Final = 13
"""Characters of a call's id that are shown: enough to tell it from any other in a journal."""

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Place:
    """Which server, and how to talk to it."""

    url: str
    journal: str
    headers: Mapping[str, str] = field(default_factory=dict)
    mode: str = "auto"
    timeout: float | None = None
    """Seconds of work that a request may take."""
    roots: bool = False
    samples: bool = True
    """Whether someone here speaks for a model."""
    again: str = ""
    """Flags that `milepost resume` needs too, for the hint."""


def _policy(timeout: float | None) -> Policy:
    """Who waits only so long for an answer waits no longer for the first contact."""
    usual = Policy()
    return usual if timeout is None else replace(usual, reach_within=min(usual.reach_within, timeout))


Job = Callable[[Client], Awaitable[Outcome]]


class Driver:
    """Runs one job at one server. `terminal`: None where nobody can be asked."""

    def __init__(
        self, place: Place, answers: Answers, screen: Screen, terminal: Terminal | None, *, call_id: str = ""
    ) -> None:
        """`call_id`: of the call to go on with, where there is one."""
        self._place = place
        self.screen = screen
        self.person = Person(terminal) if terminal else None
        self._terminal = terminal
        self._desk = Desk(answers, self.person, screen, self._stop)
        self._client: Client | None = None
        self._scopes: list[anyio.CancelScope] = []
        self._ending: Outcome | None = None
        self._menu_is_open = False
        self._called = False
        """The call has gone out, or is gone on with: there is something to cancel or to leave."""
        self.call_id = call_id

    async def run(self, job: Job) -> Outcome:
        """The job's outcome, or what its person or a signal made of it."""
        self.screen.begin()
        async with anyio.create_task_group() as beside:
            beside.start_soon(self._obey_signals, beside)
            beside.start_soon(self.screen.keep_time)
            outcome = await self._connected(job)
            beside.cancel_scope.cancel()
        return outcome

    async def _connected(self, job: Job) -> Outcome:
        outcome: Outcome | None = None
        try:
            with self._cuttable():
                client = self._made()
                async with anyio.create_task_group() as beside:
                    beside.start_soon(self._read, client.events)  # ends when the client is closed and all was read
                    async with client:
                        self._client = client
                        outcome = await self._worked(job, client)
        except Exception as error:
            if outcome is None and (outcome := of_error(error, called=self._called)) is None:
                raise
        return self._ending or outcome or Outcome(Code.UNKNOWN, said="the call was cut")

    async def _worked(self, job: Job, client: Client) -> Outcome | None:
        """None: it was cut."""
        outcome: Outcome | None = None
        with self._cuttable():
            try:
                outcome = await job(client)
            except Exception as error:
                if (outcome := of_error(error, called=self._called)) is None:
                    raise
        self._desk.closing = True
        return outcome

    def _made(self) -> Client:
        place, desk = self._place, self._desk
        return Client(
            place.url,
            journal=place.journal,
            headers=place.headers or None,
            mode=place.mode,
            read_timeout_seconds=place.timeout,
            policy=_policy(place.timeout),
            elicitation_callback=desk.elicited,
            sampling_callback=desk.sampled if place.samples else None,
            list_roots_callback=desk.rooted if place.roots else None,
            logging_callback=self._log,
            log_level="info",
        )

    async def _log(self, params: LoggingMessageNotificationParams) -> None:
        """What the server's author wanted to be read."""
        self.screen.say(f"{params.level}: {params.data}")

    async def _read(self, events: Reader) -> None:
        async for event in events:
            self._hear(event)

    def _hear(self, event: Event) -> None:
        if isinstance(event, Sent | Resumed) and event.method == "tools/call":
            self.call_id, self._called = event.call_id, True
        self.screen.show(event)

    # --- how it may be ended ---

    @contextmanager
    def _cuttable(self) -> Iterator[None]:
        with anyio.CancelScope() as scope:
            self._scopes.append(scope)
            try:
                yield
            finally:
                self._scopes.remove(scope)

    def _cut(self) -> None:
        self._desk.closing = True
        if self._scopes:
            self._scopes[-1].cancel()

    def _stop(self, why: str, mistake: bool) -> None:
        """The desk's way to leave the call waiting."""
        self.leave(Code.REFUSED if mistake else Code.WAITING, why)

    def leave(self, code: Code, why: str = "") -> None:
        """End here, and let the call wait on its server until somebody goes on with it."""
        if self._client is not None:
            self._client.leave()
        self._ending = Outcome(code, said="; ".join(filter(None, [why, self._left()])))
        self._cut()

    def _left(self) -> str:
        if not self.call_id:
            return "nothing was called"
        again = f" {self._place.again}" if self._place.again else ""
        return f"the call is left waiting: go on with `milepost resume {self.call_id[:SHORT]}{again}`"

    def cancel(self) -> None:
        """End the call on the server too.

        In the modern era a call that waits for an answer has no request that could be cancelled, so its question is
        closed instead, and the tool says what that comes to.
        """
        modern = self._client is not None and self._client.protocol_version in MODERN_PROTOCOL_VERSIONS
        if modern and self._desk.is_asking:
            self.screen.say("its question is closed; now the tool ends")
            self._desk.refuse()
            return
        self._ending = Outcome(Code.INTERRUPTED, said="cancelled")
        self._cut()

    # --- signals ---

    async def _obey_signals(self, beside: TaskGroup) -> None:
        with anyio.open_signal_receiver(*_SIGNALS) as signals:
            async for number in signals:
                if number == signal.SIGINT and self._terminal is not None and self._may_ask():
                    beside.start_soon(self._menu, self._terminal)
                else:
                    self.leave(Code.INTERRUPTED)

    def _may_ask(self) -> bool:
        return self._called and not (self._menu_is_open or self._ending or self._desk.refusing)

    async def _menu(self, terminal: Terminal) -> None:
        self._menu_is_open = True
        try:
            async with terminal.taken():
                try:
                    word = await self._word(terminal)
                except Hangup:
                    word = "l"
                if word == "g":
                    return
                if word == "c":
                    self.cancel()
                else:
                    self.leave(Code.INTERRUPTED)
                await self._desk.settled()  # else the question would be shown once more on its way out
        finally:
            self._menu_is_open = False

    async def _word(self, terminal: Terminal) -> str:
        """c, l or g."""
        terminal.screen.write(Text("\n  Interrupted: cancel it, leave it waiting, or go on?", style="yellow"))
        while True:
            word = (await terminal.menu(Text("  c, l or g › ", style="yellow"))).strip().lower()
            if word[:1] in ("c", "l", "g"):
                return word[0]
