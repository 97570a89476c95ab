"""The link to one server: the SDK's `Dispatcher`, over HTTP or a pipe, for which breaks are part of the work.

The SDK's `ClientSession` types what goes up and down; below it everything is here: a request goes out, its response is
read off its own stream, and what breaks on the way is mended. `mending` says when and what is known, `sessions` keeps
the handshake era's session, `asking` its questions, `hearing` reads what comes in, `reading` says what it means.

Each request is read by the task that makes it, so callbacks run in the caller's context, and no call waits for another.
"""

from __future__ import annotations

import itertools
import math
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextvars import copy_context
from functools import partial
from typing import Any, Final

import anyio
from anyio.abc import TaskGroup, TaskStatus
from mcp import MCPError
from mcp.shared.dispatcher import CallOptions, OnNotify, OnNotifyIntercept, OnRequest
from mcp_types import CONNECTION_CLOSED, METHOD_NOT_FOUND
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from milepost.client import events, telemetry
from milepost.client.asking import Asking
from milepost.client.errors import CallError, ServerUnavailable, TimedOut, Unauthorized
from milepost.client.events import Bulletin, Event
from milepost.client.exchange import Endpoint, Response
from milepost.client.hearing import Hearing
from milepost.client.inbound import Inbound
from milepost.client.interaction import JSON, META, Interaction, current
from milepost.client.mending import Mender, names
from milepost.client.origins import Origin
from milepost.client.policy import Policy
from milepost.client.reading import refusal
from milepost.client.request import Request, encode, interaction_of, params_of, stamped_version
from milepost.client.retrying import Fault, Known, SessionGone
from milepost.client.sessions import Session, Sessions
from milepost.client.tools import Tools
from milepost.loggers import Logger

_log = Logger(__name__)

_POST: Final = {
    "content-type": "application/json",
    "accept": "application/json, text/event-stream",
    "accept-encoding": "identity",
}
_GET: Final = {"accept": "text/event-stream", "accept-encoding": "identity"}
_FIRST_CONTACT: Final = frozenset({"server/discover", "initialize"})
_MOST_SESSIONS_LOST: Final = 8
"""Sessions that one request may see forgotten: more is a server that keeps none."""
_NO_TOOLS: Final = {"tools": [], "resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
_SESSION_ENDED: Final = "the session ended while the call was going on"

Record = Callable[[Interaction], Awaitable[None]]


class Link:
    """A `Dispatcher` for `ClientSession`, which runs it in its task group."""

    def __init__(
        self, endpoint: Endpoint, origin: Origin, policy: Policy, bulletin: Bulletin, record: Record, sessions: Sessions
    ) -> None:
        self.policy = policy
        self.record = record
        self.sessions = sessions
        self.where = endpoint.where
        self.most_questions = 1000
        """That one call may ask on its stream."""
        self.leaving = False
        """Abandoned calls are left to be resumed, not cancelled."""
        self._endpoint = endpoint
        self.origin = origin
        self._bulletin = bulletin
        self._ids = itertools.count(1)
        self._asking = Asking(self)
        self._hearing = Hearing(self, self._asking, bulletin)
        self._mender = Mender(policy, origin, self.tell, self.pursue)
        self._refused_modern = False
        self._unauthorized: Unauthorized | None = None
        self._group: TaskGroup | None = None
        self._home = copy_context()
        self._going: set[Request] = set()
        self._none_goes = anyio.Event()
        self._on_request: OnRequest | None = None
        sessions.bind(self)

    # --- life ----------------------------------------------------------------------------------------

    async def run(
        self,
        on_request: OnRequest,
        on_notify: OnNotify,
        on_notify_intercept: OnNotifyIntercept | None = None,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Until cancelled. Owns the tasks of questions and of the session's own stream."""
        self._on_request = on_request
        self._home = copy_context()
        self._hearing.hand_to(on_notify, on_notify_intercept)
        try:
            async with anyio.create_task_group() as self._group:
                task_status.started()
                await anyio.sleep_forever()
        finally:
            self._group = None

    def spawn(self, work: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> None:
        """Run `work` beside the request that asked for it, in its context."""
        if self._group is not None:
            self._group.start_soon(work, *args)

    def spawn_apart(self, work: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> None:
        """Run `work` in the context of the connection: it belongs to no call."""
        if self._group is not None:
            self._home.run(self._group.start_soon, work, *args)

    async def aclose(self) -> None:
        """End what goes on in other tasks, and say goodbye, unless something is left to be resumed. Idempotent."""
        for request in self._going:
            request.break_off(self._mender.ended(request, Fault(request.known_if_cut_off, "the client was closed")))
        with anyio.move_on_after(self.policy.farewell, shield=True):
            while self._going:
                self._none_goes = anyio.Event()
                await self._none_goes.wait()
            await self.sessions.end(forget=not self.leaving)

    # --- requests --------------------------------------------------------------------------------------

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> JSON:
        """A request's result. Raises MCPError (the server's), CallError, ServerUnavailable (at the first contact)."""
        if self._group is None:
            raise MCPError(CONNECTION_CLOSED, "Connection closed")
        known = self._known_beforehand(method)
        if known is not None:
            return known
        interaction = interaction_of(method, params, current.get())
        version = stamped_version(opts or {})
        with telemetry.operation(method, interaction, self.where, version) as operation:
            request = self._request(method, params, opts or {}, interaction, operation.carried)
            after = current.get() if method == "tools/list" else None
            if after is not None and after.done:
                return await self._listed_after(request)
            try:
                result = await self._timed(request)
            except MCPError as exc:
                self._failed_first(method, exc)
                raise
            finally:
                operation.sent_as(request.wire_id)
            await self._went_through(request, result)
            if method == "tools/call" and result.get("isError") is True:
                operation.tool_failed()
            return result

    async def _listed_after(self, request: Request) -> JSON:
        """What the SDK's session lists to check a result by. That result must not wait for it, nor be lost to it."""
        request.heard = -math.inf
        try:
            result = await self._timed(request)
        except MCPError as exc:
            _log.info("a result could not be checked by its tool's schema", reason=str(exc))
            return dict(_NO_TOOLS)
        await self._went_through(request, result)
        return result

    def _failed_first(self, method: str, exc: MCPError) -> None:
        """Keep what a failed probe says. A server that wants authorization does, whatever its handshake says."""
        if method == "server/discover":
            self._refused_modern |= _is_a_no(exc)
            self._unauthorized = exc if isinstance(exc, Unauthorized) else None
        elif method == "initialize" and self._unauthorized is not None:
            raise self._unauthorized from exc

    def _known_beforehand(self, method: str) -> JSON | None:
        """What needs no wire: the handshake of a session that is taken over, the era of a server that is remembered."""
        if method == "initialize":
            kept = self.sessions.taken_over()
            if kept is not None:  # what its first process sent may still be going on, under ids that began at one
                self._ids = itertools.count(secrets.randbelow(2**40) + 2**32)
            return kept
        if method == "server/discover" and (self.sessions.may_be_taken_over or self.origin.speaks_handshake):
            raise MCPError(METHOD_NOT_FOUND, "this server is remembered as one that speaks no modern version")
        return None

    def _request(
        self,
        method: str,
        params: Mapping[str, Any] | None,
        opts: CallOptions,
        interaction: Interaction,
        context: Mapping[str, str],
    ) -> Request:
        wanted = opts.get("on_progress")
        matters = self._bulletin.is_read or opts.get("timeout") is not None  # progress renews a time limit
        is_wanted = wanted is not None or (matters and method == "tools/call")
        token = interaction.call_id if is_wanted else None  # the same in the next process, which may read the stream on
        request = Request(
            method,
            params_of(params, interaction, context, token),
            opts.get("headers") or {},
            interaction,
            modern=method == "server/discover" or stamped_version(opts) in MODERN_PROTOCOL_VERSIONS,
            token=token,
            on_progress=wanted,
            timeout=self._limit_of(method, opts.get("timeout")),
            cancel_on_abandon=opts.get("cancel_on_abandon", True),
            own_id=opts.get("request_id"),
            on_token=opts.get("on_resumption_token"),
            last_event_id=opts.get("resumption_token"),
            longest=self.policy.max_work,
        )
        request.heard = anyio.current_time()
        if interaction.found and interaction.sent and method == interaction.method:
            request.known = Known.UNKNOWN  # its earlier process sent it
        return request

    def _limit_of(self, method: str, given: float | None) -> float | None:
        if method == "server/discover" and self._endpoint.silence_is_no:
            return min(self.policy.reach_within, given or math.inf)
        return self.policy.reach_within if method in _FIRST_CONTACT else given

    async def _timed(self, request: Request) -> JSON:
        """Within the caller's time limit. Raises TimedOut past it."""
        request.start_clock()
        self._going.add(request)
        try:
            with request.scope:
                return await self.pursue(request)
            await self.abandoned(request)
        except anyio.get_cancelled_exc_class():
            await self.abandoned(request)
            raise
        finally:
            self._asking.over(request.interaction)
            self._going.discard(request)
            if not self._going:
                self._none_goes.set()
        if request.broken is not None:
            raise request.broken
        if request.method == "server/discover" and self._endpoint.silence_is_no:
            raise MCPError(METHOD_NOT_FOUND, f"the server said nothing to the version probe for {request.timeout:g} s")
        if request.method in _FIRST_CONTACT:
            raise ServerUnavailable(f"no connection in {request.timeout:g} s: {request.trouble or 'no answer came'}")
        request.met(Fault(request.known_if_cut_off, request.trouble))
        text = f"{request.about} timed out after {request.timeout or 0:g} s of work"
        raise TimedOut(text, call_id=request.interaction.call_id, known=request.known.value)

    async def pursue(self, request: Request) -> JSON:
        """Try, and mend what can be mended, until there is a result. Raises what `send_raw_request` says."""
        lost = 0
        while True:
            try:
                await self._mender.admit(request)
                result = await self._try(request)
            except SessionGone as gone:
                lost += 1
                request.met(gone)
                self.sessions.lost(request.session)
                if lost > _MOST_SESSIONS_LOST:
                    raise self._mender.ended(request, gone) from gone
            except Fault as fault:
                await self._mender.mend(request, fault)
            else:
                self._mender.went_through()
                return result

    async def _try(self, request: Request) -> JSON:
        session = None if request.modern or request.method == "initialize" else await self._session_for(request)
        request.session = session
        interaction = request.interaction
        if interaction.found and interaction.sent and not request.tries and request.method == interaction.method:
            return await self._take_up(request, session)
        if session is not None and request.last_event_id is not None:
            if request.stands_in not in (None, session):  # its stream went with its session
                request.last_event_id = None
                raise Fault(Known.UNKNOWN, _SESSION_ENDED)
            return await self._reread(request, session)
        return await self.once(request, session)

    async def _session_for(self, request: Request) -> Session:
        try:
            return await self.sessions.current(request)
        except (CallError, MCPError) as exc:
            raise self._mender.without_session(request, exc) from exc

    async def once(self, request: Request, session: Session | None) -> JSON:
        """Send it, and read its response off the answer. Raises Fault, MCPError."""
        request.tries += 1
        request.wire_id, request.underway = self._id_for(request), True
        interaction = request.interaction
        if request.method == "tools/call":
            interaction.sending(request.wire_id, session.id if session is not None else None)
            if session is not None:
                interaction.from_its_beginning()
            await self.record(interaction)
        if self._bulletin.is_read:
            attempt = interaction.tries
            self.tell(events.Sent(**names(request), method=request.method, name=request.name, attempt=attempt))
        headers = {**request.headers, **_POST} if session is None else {**request.headers, **_POST, **session.headers()}
        waiting, silence = request.a_person_is_needed, self._silence_of(request)
        response = await self._endpoint.send("POST", headers, request.body(), waiting, silence)
        return await self._hearing.read(request, response)

    def _silence_of(self, request: Request) -> Callable[[], float]:
        return partial(self.origin.silence, request.method, request.timeout)

    async def _reread(self, request: Request, session: Session) -> JSON:
        """Read on where a stream broke (2025-11-25 basic/transports, resumability)."""
        response = await self.fetch(session, {"last-event-id": request.last_event_id or ""}, request)
        self.tell(events.Reconnected(**names(request), reason="the stream had broken"))
        telemetry.recovered("reconnected")
        return await self._hearing.read(request, response)

    async def _take_up(self, request: Request, session: Session | None) -> JSON:
        """The first try of a call that another process sent: its stream where it stood, if it can be read on."""
        interaction = request.interaction
        request.tries += 1
        here = session is not None and session.id is not None and session.id == interaction.session_id
        how = "stream" if here and interaction.last_event_id is not None else "re-issued"
        self.tell(events.Resumed(**names(request), method=request.method, name=request.name, how=how))
        telemetry.recovered("resumed")
        if session is None or how != "stream":
            raise Fault(Known.UNKNOWN, "the process that sent it died, and its stream can't be read on")
        request.wire_id, request.last_event_id = interaction.wire_id, interaction.last_event_id
        request.stands_in = session
        self._asking.take_up(request, session)
        return await self._reread(request, session)

    def _id_for(self, request: Request) -> Any:
        if request.own_id is None:
            return next(self._ids)
        return request.own_id if request.tries == 1 else f"{request.own_id}~{request.tries}"

    async def _went_through(self, request: Request, result: JSON) -> None:
        """Learn from a result what later requests need."""
        method = request.method
        if method == "tools/list":
            self._mender.learn(result)
        elif method == "initialize":
            await self.sessions.opened(request.params, result)
            if self._refused_modern:
                self.origin.remember_handshake()
        elif method == "server/discover":
            self.origin.forget()
        elif method == "tools/call":
            self._called(request.interaction, result)
        self.sessions.noticed(request.method, request.params)
        meta = result.get("_meta")
        if isinstance(meta, dict) and isinstance(meta.get(META + "run_id"), str):
            request.interaction.run_id = meta[META + "run_id"]

    def _called(self, call: Interaction, result: JSON) -> None:
        call.sent, call.done = False, result.get("resultType") != "input_required"

    async def abandoned(self, request: Request) -> None:
        """Tell a handshake-era server that nobody waits any more (a modern one knows: its stream is closed)."""
        session = request.session
        if session is None or not request.cancel_on_abandon or self.leaving or not request.tries:
            return
        request.cancel_on_abandon = False  # once
        params = {"requestId": request.wire_id, "reason": "the caller no longer waits"}
        with anyio.move_on_after(self.policy.farewell, shield=True):
            await self._post_leniently(session, {"method": "notifications/cancelled", "params": params})

    # --- what has no response ----------------------------------------------------------------------------

    async def notify(self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None) -> None:
        """A notification. The modern era has none from a client over HTTP, so there it goes nowhere."""
        if stamped_version(opts or {}) in MODERN_PROTOCOL_VERSIONS:
            return
        if method == "notifications/initialized":
            await self.sessions.initialized()
        elif self.sessions.open is not None:
            message: JSON = {"method": method} if params is None else {"method": method, "params": dict(params)}
            await self._post_leniently(self.sessions.open, message)

    async def _post_leniently(self, session: Session, message: JSON) -> None:
        try:
            await self.post(session, {"jsonrpc": "2.0", **message})
        except SessionGone:
            self.sessions.lost(session)
        except Exception as exc:  # also of an `auth`: it must not stand in the way of a cancellation
            _log.info("a notification was not taken", method=message["method"], reason=str(exc))

    async def post(self, session: Session, message: JSON) -> None:
        """Send what has no response. Raises Fault, SessionGone, MCPError."""
        await self._drained(session, await self._endpoint.send("POST", _POST | session.headers(), encode(message)))

    async def delete(self, session: Session) -> None:
        """End a session. Raises Fault, SessionGone, MCPError."""
        await self._drained(session, await self._endpoint.send("DELETE", session.headers()))

    async def _drained(self, session: Session, response: Response) -> None:
        try:
            if response.status >= 400:
                raise await refusal(response, None, in_session=session.id is not None)
        finally:
            await response.aclose(keep=True)

    async def fetch(self, session: Session, headers: Mapping[str, str], request: Request | None = None) -> Response:
        """An event stream by GET: the session's own, or the rest of a request's. Raises Fault, SessionGone, MCPError.

        Of a request whose stream can't be read on nothing is refused by that: it went through long ago.
        """
        silence = None if request is None else self._silence_of(request)
        response = await self._endpoint.send("GET", {**_GET, **session.headers(), **headers}, silence=silence)
        if response.status == 200 and response.is_events:
            return response
        try:
            if response.status < 400:
                why: Exception = Fault(Known.REFUSED, "the server answered a GET with no event stream", again=False)
            else:
                why = await refusal(response, None, in_session=session.id is not None)
        finally:
            await response.aclose()
        raise why if request is None else self._cut_off(request, session, why)

    def _cut_off(self, request: Request, session: Session, why: Exception) -> Fault:
        if isinstance(why, Fault) and why.again and not isinstance(why, SessionGone):
            return Fault(Known.UNKNOWN, why.reason, retry_after=why.retry_after, status=why.status)
        request.last_event_id = None
        if isinstance(why, SessionGone):
            self.sessions.lost(session)
            return Fault(Known.UNKNOWN, _SESSION_ENDED)
        return Fault(Known.UNKNOWN, f"its stream can't be read on: {why}")

    @property
    def tools(self) -> Tools:
        """What is known of the server's tools."""
        return self._mender.tools

    # --- for the parts -----------------------------------------------------------------------------------

    async def answer(self, inbound: Inbound, method: str, params: JSON) -> JSON:
        """Ask the SDK's session, which asks the caller's callbacks. Raises MCPError."""
        if self._on_request is None:
            raise MCPError(CONNECTION_CLOSED, "Connection closed")
        return await self._on_request(inbound, method, params)

    async def heard(self, session: Session, data: bytes) -> None:
        """An event on the session's own stream."""
        await self._hearing.heard(session, data)

    def alive(self) -> None:
        """The server has taken a request."""
        self._mender.alive()

    def tell(self, event: Event) -> None:
        self._bulletin.post(event)

    def undelivered(self, request: Request, fault: Fault) -> None:
        """End a call whose answer can't be given; not at the server, for its caller may go on with it."""
        request.cancel_on_abandon = False
        why = Fault(Known.UNKNOWN, f"an answer could not be given: {fault.reason}")
        request.break_off(self._mender.ended(request, why))

    def forget(self, session: Session) -> None:
        """A session is gone: so is what it asked outside of calls, and maybe the build that listed the tools."""
        self._asking.lost(session)
        self._mender.tools.forget()


def _is_a_no(exc: MCPError) -> bool:
    """Whether the probe was refused, by the server's own word or a 4xx: not by its trouble, or for a token."""
    if isinstance(exc, Unauthorized):
        return False
    return not isinstance(exc.__cause__, Fault) or 400 <= exc.__cause__.status < 500
