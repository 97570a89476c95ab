"""The client: the official `mcp.Client`, over a `Link`, with a journal.

What is typed, listed, cached and validated is the SDK's; this adds what keeps one wish of a caller (an `Interaction`)
alive across sessions, streams, rounds and processes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from importlib import metadata
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio
import anyio.to_thread
import httpx2
import mcp
from mcp import MCPError, StdioServerParameters
from mcp.shared.dispatcher import Dispatcher, ProgressFnT
from mcp_types import (
    CallToolResult,
    Implementation,
    InitializeResult,
    InputRequiredResult,
    InputResponses,
    RequestParamsMeta,
)

from milepost.client import rounds
from milepost.client.errors import CallError, OutcomeUnknown, TimedOut
from milepost.client.events import Bulletin, Event, Finished, GaveUp, Reader
from milepost.client.exchange import Endpoint
from milepost.client.http import Endpoint as HttpEndpoint
from milepost.client.http import open_http, shown
from milepost.client.interaction import JSON, Ending, Interaction, current
from milepost.client.journal import Journal, JournalKeeper, Pending, pending_of
from milepost.client.link import Link
from milepost.client.origins import SHARED, Origins
from milepost.client.pipe import Pipe, place_of
from milepost.client.policy import Policy
from milepost.client.retrying import Fault
from milepost.client.sessions import Keeper, Sessions
from milepost.core.errors import StoreError
from milepost.loggers import Logger

T = TypeVar("T")

_log = Logger(__name__)


@dataclass(frozen=True, slots=True)
class Ended:
    """What became of a resumed call: one of `result` and `error`."""

    call: Pending
    result: CallToolResult | None = None
    error: Exception | None = None


@dataclass(kw_only=True)
class Client(mcp.Client):
    """`mcp.Client` for a conversation that must not be lost. `server`: a URL, or the command of a child process.

    With another kind of server (a transport, a server in this process) the SDK's own link is used; rounds and events of
    questions work there too.
    """

    journal: str | None = None
    """`sqlite:///client.db`: calls outlive this process. Several processes may share the file."""
    auth: httpx2.Auth | None = None
    """How to authorize, e.g. the SDK's `OAuthClientProvider`; it sees a 401 before anything else does."""
    headers: Mapping[str, str] | None = None
    http_client: httpx2.AsyncClient | None = None
    """One of your own; `auth` and `headers` are then its own matter, and closing it is yours."""
    policy: Policy = field(default_factory=Policy)
    origins: Origins = SHARED
    """Where the health and the era of servers are remembered."""
    input_required_max_rounds: int = 1000
    """Rounds of questions in one call, or questions on its stream: a workflow may well ask more than the official
    client's ten."""

    def __post_init__(self) -> None:
        """Raises ValueError for a URL, a mode or a journal that can't be."""
        if self.client_info is None:
            self.client_info = Implementation(name="milepost", version=metadata.version("milepost"))
        super().__post_init__()
        self._bulletin = Bulletin(self.policy.unread_events)
        self._books = Journal(self.journal) if self.journal is not None else None
        self._unfinished: dict[str, Interaction] = {}
        self._in_flight: set[str] = set()
        self._leaving = False
        self._link: Link | None = None
        self._url = _place_of(self.server)
        if isinstance(self.server, str):
            self._connect = self._open_http
        elif isinstance(self.server, StdioServerParameters):
            self._connect = self._open_pipe
        elif self.journal is not None and not self._url:
            raise ValueError("a journal is for a server that can be found again: give its URL, or its command")

    # --- life ----------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        """Without what is secret: headers, credentials in the URL, a command's arguments and environment."""
        server: object = self.server
        if isinstance(server, str):
            server = shown(httpx2.URL(server))
        elif isinstance(server, StdioServerParameters):
            server = server.command
        return f"Client({server!r})"

    async def __aenter__(self) -> Self:
        if self._entered:
            raise RuntimeError("this client was already entered: make another one")
        try:
            if self._books is not None:
                await anyio.to_thread.run_sync(self._books.open)
                await self._books.sweep(self.policy.forget_answers)
            await self._connected()
        except BaseException:
            self._close_books()
            raise
        return self

    async def _connected(self) -> None:
        try:
            await super().__aenter__()
        except BaseException as exc:
            raise _alone(exc) from None
        try:
            await self._remember_era()
        except BaseException as exc:  # nobody else will leave what was entered
            await self.__aexit__(type(exc), exc, exc.__traceback__)
            raise

    async def _remember_era(self) -> None:
        if self._books is not None and self._link is not None and self._link.origin.speaks_handshake:
            await self._books.save_era(self._link.where.origin, "handshake", self._link.origin.handshake_until)

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._link is not None:
            self._link.leaving = self._leaving or (self._books is not None and bool(self._unfinished))
        try:
            await super().__aexit__(exc_type, exc, trace)
        except BaseExceptionGroup as group:
            if exc is None or _alone(group) is not exc:
                raise
        finally:
            self._close_books()
            self._bulletin.close()

    def _close_books(self) -> None:
        if self._books is not None:
            self._books.close()

    async def _open_http(self, stack: AsyncExitStack, _mode: str, _raise_exceptions: bool) -> Dispatcher[Any]:
        http = self.http_client
        if http is None:
            http = await stack.enter_async_context(open_http(self.headers, self.auth, self.policy))
        assert isinstance(self.server, str)  # noqa: S101  `__post_init__` looked
        keeper = Keeper() if self._books is None else JournalKeeper(self._books, self._url)
        return self._linked(stack, HttpEndpoint(self.server, http, self.policy), keeper)

    async def _open_pipe(self, stack: AsyncExitStack, _mode: str, _raise_exceptions: bool) -> Dispatcher[Any]:
        assert isinstance(self.server, StdioServerParameters)  # noqa: S101  `__post_init__` looked
        pipe = await stack.enter_async_context(Pipe(self.server, self.policy))
        return self._linked(stack, pipe, Keeper())  # a session ends with its process, and that with ours

    def _linked(self, stack: AsyncExitStack, endpoint: Endpoint, keeper: Keeper) -> Link:
        origin = self.origins.of(endpoint.where.origin, self.policy)
        until = None if self._books is None else self._books.handshake_until(endpoint.where.origin)
        if until is not None:
            origin.remember_handshake(until)
        sessions = Sessions(keeper)
        sessions.on_renewed = self._renewed
        self._link = Link(endpoint, origin, self.policy, self._bulletin, self.record, sessions)
        self._link.most_questions = self.input_required_max_rounds
        stack.push_async_callback(self._link.aclose)
        return self._link

    def _renewed(self, result: JSON) -> None:
        if self._session is not None:
            self._session.adopt(InitializeResult.model_validate(result, by_name=False))

    def leave(self) -> None:
        """From now on, a call that is abandoned (its task cancelled, the client closed) is left to be resumed."""
        self._leaving = True
        if self._link is not None:
            self._link.leaving = True

    @property
    def events(self) -> Reader:
        """This client's events from now on; each use makes a reader of its own."""
        return self._bulletin.reader()

    # --- calls ---------------------------------------------------------------------------------------

    async def call_tool(
        self,
        name: str,
        arguments: dict[str, Any] | None = None,
        read_timeout_seconds: float | None = None,
        progress_callback: ProgressFnT | None = None,
        *,
        input_responses: InputResponses | None = None,
        request_state: str | None = None,
        meta: RequestParamsMeta | None = None,
        reissue: bool | None = None,
    ) -> CallToolResult:
        """Call a tool, through whatever happens on the way.

        `read_timeout_seconds`: of work; it stands still while a person is asked, and progress renews it. `reissue`:
        whether the call may be sent again where its outcome is unknown; None: if its tool is a workflow of a Milepost
        server, or declares itself read-only or idempotent. An equal call that failed here after somebody had answered
        is gone on with, so nobody is asked twice.

        Raises MCPError: the server's own word. NotSent, Refused, Unauthorized, OutcomeUnknown, TimedOut: what is known,
        where there is no such word.
        """
        params: JSON = {"name": name, "arguments": arguments, "_meta": dict(meta) if meta else None}
        call = self._left_here(params, reissue) or Interaction("tools/call", name, params, reissue)
        return await self._conduct(call, read_timeout_seconds, progress_callback, input_responses, request_state)

    async def _conduct(
        self,
        call: Interaction,
        seconds: float | None = None,
        progress: ProgressFnT | None = None,
        responses: InputResponses | None = None,
        state: str | None = None,
    ) -> CallToolResult:
        async with self._conducting(call):
            if responses is None and state is None:
                state, responses = call.request_state, await rounds.answer_kept(self, call)
            result = await super().call_tool(
                call.name,
                call.params.get("arguments"),
                seconds,
                progress,
                input_responses=responses,
                request_state=state,
                meta=call.params.get("_meta"),
            )
            self.tell(
                Finished(
                    **_names(call), method=call.method, name=call.name, is_error=result.is_error, run_id=call.run_id
                )
            )
            return result

    async def _drive_input_required(
        self,
        first: T | InputRequiredResult,
        retry: Callable[[InputResponses | None, str | None], Awaitable[T | InputRequiredResult]],
    ) -> T:
        call = current.get()
        if call is None or call.in_rounds:
            call = Interaction("")  # of a prompt or a resource; maybe one that a call's callback reads
        return await rounds.drive(self, call, first, retry, self.input_required_max_rounds)

    async def may_start_over(self, interaction: Interaction) -> bool:
        """Whether a call may be made anew whose rounds the server has forgotten."""
        if interaction.reissue is not None:
            return interaction.reissue
        if self._link is None:
            return False
        if not self._link.tools.knows(interaction.name):
            await self._relist_tool(interaction.name)
        return self._link.tools.may_be_reissued(interaction.name)

    @asynccontextmanager
    async def _conducting(self, call: Interaction) -> AsyncIterator[None]:
        """Around all of a call: it is current, and its end is recorded."""
        token = current.set(call)
        self._unfinished[call.call_id] = call
        self._in_flight.add(call.call_id)
        try:
            yield
            call.ending = Ending.RESULT
        except BaseException as exc:
            call.ending = self._ending(call, exc)
            raise
        finally:
            current.reset(token)
            call.done = False
            self._in_flight.discard(call.call_id)
            if call.ending is not Ending.OPEN:
                del self._unfinished[call.call_id]
                await self._close(call)
            else:
                self._let_go_of_the_oldest()

    def _let_go_of_the_oldest(self) -> None:
        """Only so many failed calls are kept in memory. A journal, if there is one, keeps them all."""
        idle = [call for call in self._unfinished if call not in self._in_flight]
        for call_id in idle[: max(0, len(idle) - self.policy.max_unfinished)]:
            del self._unfinished[call_id]

    def _ending(self, call: Interaction, exc: BaseException) -> Ending:
        """What a failure leaves: nothing, or a call to go on with later, because somebody answered or nobody knows."""
        if not isinstance(exc, Exception):
            return Ending.OPEN if self._leaving else self._told(call, Ending.CANCELLED, "it was cancelled", "cancelled")
        if isinstance(exc, TimedOut):  # a server of the handshake era was told, so there the call is over
            kept = bool(call.round_keys) and call.owes_answers
            return self._told(call, Ending.OPEN if kept else Ending.ERROR, str(exc), exc.known)
        own = isinstance(exc, CallError | rounds.NotAnswered) or isinstance(exc.__cause__, Fault)
        if isinstance(exc, MCPError) and not own:
            ending = Ending.OPEN if call.may_be_made_anew else Ending.ERROR
            return self._told(call, ending, str(exc), "error")
        more_may_be_known = not call.settled if call.found else isinstance(exc, OutcomeUnknown)
        if call.keeps_answers or (more_may_be_known and self._books is not None):
            return Ending.OPEN
        return Ending.ERROR

    def _told(self, call: Interaction, ending: Ending, reason: str, known: str) -> Ending:
        self.tell(GaveUp(**_names(call), reason=reason, known=known))
        return ending

    async def _close(self, call: Interaction) -> None:
        if self._books is None or not call.sent_ever:
            return
        try:
            await self._books.save(self._url, call)
        except StoreError as exc:  # what became of the call is true all the same, and its caller shall have it
            _log.warning("the end of a call could not be written down", call_id=call.call_id, reason=str(exc))

    async def record(self, interaction: Interaction) -> None:
        """Write a call down as it stands, if there is a journal."""
        if self._books is not None and interaction.call_id in self._unfinished:
            await self._books.save(self._url, interaction)

    def tell(self, event: Event) -> None:
        """Post an event to this client's readers."""
        self._bulletin.post(event)

    # --- what was left -------------------------------------------------------------------------------

    def _left_here(self, params: JSON, reissue: bool | None) -> Interaction | None:
        """An equal call of this client that failed after somebody had answered: its caller makes it again."""
        for call in self._unfinished.values():
            if _same(call.params, params) and call.call_id not in self._in_flight and call.keeps_answers:
                call.found = call.may_be_made_anew = False  # the caller wants it sent, whatever became of it
                call.reissue = call.reissue if reissue is None else reissue
                return call
        return None

    def pending(self) -> list[Pending]:
        """Calls to this server without an end: of this client, and of all that the journal holds. The oldest first."""
        mine = [
            pending_of(self._url, call, alive=call.call_id in self._in_flight) for call in self._unfinished.values()
        ]
        known = {one.call_id for one in mine}
        others = [] if self._books is None else self._books.unfinished(self._url)
        return sorted([*mine, *(one for one in others if one.call_id not in known)], key=lambda one: one.begun)

    async def resume(self, call_id: str | None = None) -> list[Ended]:
        """Go on with what was left unfinished, all at the same time; returns once all of it has ended.

        `call_id`: that one alone. Questions that are open are asked by this client's callbacks; answers that were
        given are sent, not asked for. A call whose outcome can't be known, and which must not be sent again, ends with
        OutcomeUnknown, and is kept if somebody answered something in it. What each call ended with is in its `Ended`,
        also that its client is still running (JournalInUse). Raises LookupError where there is no call `call_id`.
        """
        wanted = [one for one in self.pending() if call_id in (None, one.call_id)]
        if call_id is not None and not wanted:
            raise LookupError(f"no call {call_id!r} is pending for {self._url}")
        ended: dict[str, Ended] = {}
        async with anyio.create_task_group() as group:
            for one in wanted:
                if call_id is not None or not one.alive:
                    group.start_soon(self._resume, one, ended)
        return [ended[one.call_id] for one in wanted if one.call_id in ended]

    async def forget(self, call_id: str) -> None:
        """Go on with this call no more: it counts as cancelled. Raises LookupError, JournalInUse as `resume` does."""
        call = self._unfinished.get(call_id)
        if call is None and self._books is not None:
            call = await self._books.take(self._url, call_id)
        if call is None or call_id in self._in_flight:
            raise LookupError(f"no call {call_id!r} is pending for {self._url}")
        self._unfinished.pop(call_id, None)
        call.ending = Ending.CANCELLED
        await self._close(call)

    async def _resume(self, pending: Pending, ended: dict[str, Ended]) -> None:
        try:
            call = self._unfinished.get(pending.call_id)
            if call is None and self._books is not None:
                call = await self._books.take(self._url, pending.call_id)
            if call is None or call.call_id in self._in_flight:
                return
            call.found = True
            ended[call.call_id] = Ended(pending, result=await self._conduct(call))
        except Exception as exc:
            ended[pending.call_id] = Ended(pending, error=exc)


def _names(call: Interaction) -> dict[str, Any]:
    return {"call_id": call.call_id, "trace_id": call.trace_id}


def _alone(exc: BaseException) -> BaseException:
    """The one error in the groups that the SDK's session wraps around what happens inside it."""
    while isinstance(exc, BaseExceptionGroup) and len(exc.exceptions) == 1:
        exc = exc.exceptions[0]
    return exc


def _same(one: JSON, other: JSON) -> bool:
    """Whether two calls are equal. Their `_meta` (a trace, a progress token) may differ."""
    return (one["name"], one.get("arguments") or {}) == (other["name"], other.get("arguments") or {})


def _place_of(server: object) -> str:
    """Where a server is found again: its URL without credentials, its command, or nothing. Raises ValueError."""
    if isinstance(server, StdioServerParameters):
        return place_of(server)
    return _checked(server) if isinstance(server, str) else ""


def _checked(url: str) -> str:
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as exc:
        raise ValueError(f"{url!r} is no URL: {exc}") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"{url!r} is no URL of a server: it must be like http://127.0.0.1:8000/mcp")
    return str(parsed.copy_with(username=None, password=None)) if parsed.userinfo else url
