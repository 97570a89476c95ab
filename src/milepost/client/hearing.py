"""What comes in: the response to a request, and what the server says on the way to it or outside of any request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import anyio
from mcp.shared.dispatcher import OnNotify, OnNotifyIntercept, run_notify_intercept

from milepost.client import events
from milepost.client.asking import Asking
from milepost.client.events import Bulletin, Event
from milepost.client.exchange import Response
from milepost.client.inbound import Inbound
from milepost.client.interaction import JSON, META, Interaction
from milepost.client.mending import names
from milepost.client.origins import Origin
from milepost.client.reading import is_response, parse, refusal, result_in, same_id
from milepost.client.request import Request
from milepost.client.retrying import Fault, Known, StreamEnded
from milepost.client.sessions import Session, Sessions
from milepost.client.subscribing import after_a_gap, renamed
from milepost.client.tools import Tools
from milepost.loggers import Logger

_log = Logger(__name__)


class Owner(Protocol):
    """What hearing needs of the link."""

    sessions: Sessions
    origin: Origin

    @property
    def tools(self) -> Tools: ...

    @property
    def record(self) -> Callable[[Interaction], Awaitable[None]]: ...

    def alive(self) -> None: ...

    def tell(self, event: Event) -> None: ...

    async def abandoned(self, request: Request) -> None: ...


class Hearing:
    """Of one link. Questions go to `asking`, notifications to the SDK's session."""

    def __init__(self, link: Owner, asking: Asking, bulletin: Bulletin) -> None:
        self._link = link
        self._asking = asking
        self._bulletin = bulletin
        self._on_notify: OnNotify | None = None
        self._intercept: OnNotifyIntercept | None = None

    def hand_to(self, on_notify: OnNotify, intercept: OnNotifyIntercept | None) -> None:
        """Where notifications go from now on."""
        self._on_notify, self._intercept = on_notify, intercept

    async def read(self, request: Request, response: Response) -> JSON:
        """The result, from whatever form the response has. Raises Fault, MCPError."""
        request.read(response)
        session, whole = request.session, False
        try:
            if response.status >= 400:
                raise await refusal(
                    response, request.wire_id, in_session=session is not None and session.id is not None
                )
            if not request.resumable:  # of one that is read on, the events are what counts
                request.sign_of_life()
            self._link.alive()
            if request.method == "initialize":
                self._link.sessions.named(response.headers.get("mcp-session-id"))
            if response.is_events:
                result = await self._read_events(request, response)
            elif response.is_json:
                result = self._result(request, parse(await response.body()))
            else:
                reason = f"the server answered {response.status} without a response"
                raise Fault(Known.UNKNOWN, reason, again=False)
            whole = True
            return result
        except anyio.get_cancelled_exc_class():
            await self._link.abandoned(request)  # while its stream is open: a server may know the call by that alone
            raise
        finally:
            request.response = None
            await response.aclose(keep=whole)

    async def _read_events(self, request: Request, response: Response) -> JSON:
        while (batch := await response.events()) is not None:
            request.sign_of_life()
            self._link.origin.gives_signs |= response.gave_signs
            for event in batch:
                if event.retry is not None:
                    request.retry = event.retry / 1000
                message = parse(event.data) if event.data and event.kind == "message" else None
                if message is not None and is_response(message) and self._is_for(request, message):
                    return result_in(message)
                if message is not None:
                    await self._said(request, request.session, message)
                if event.id and not request.modern:
                    await self._stands_at(request, event.id)
        if request.resumable:
            raise StreamEnded
        raise Fault(Known.UNKNOWN, "the stream ended without a response")

    async def _stands_at(self, request: Request, event_id: str) -> None:
        request.last_event_id, request.stands_in = event_id, request.session
        if request.method == "tools/call":
            call = request.interaction
            is_first, call.last_event_id = call.last_event_id is None, event_id
            if is_first:  # from here on another process could read on; a later place only spares it a few events
                await self._link.record(call)
        if request.on_token is not None:
            await request.on_token(event_id)

    def _result(self, request: Request, message: JSON) -> JSON:
        if not is_response(message) or not self._is_for(request, message):
            raise Fault(Known.UNKNOWN, "the server's response is for another request", again=False)
        return result_in(message)

    def _is_for(self, request: Request, message: JSON) -> bool:
        return request.wire_id is None or same_id(message.get("id"), request.wire_id)

    async def heard(self, session: Session, data: bytes) -> None:
        """An event on the session's own stream. What is no message there is dropped: no call waits for it."""
        try:
            message = parse(data) if data else {}
        except Fault as fault:
            _log.warning("an event of the session's own stream was dropped", reason=fault.reason)
            return
        await self._said(None, session, message)

    async def _said(self, request: Request | None, session: Session | None, message: JSON) -> None:
        """A notification, or a request of the server's. A response for nobody is dropped."""
        method, wire_id = message.get("method"), message.get("id")
        if not isinstance(method, str):
            return
        if wire_id is None:
            params = message.get("params")
            await self._notified(request, method, params if isinstance(params, dict) else None)
        elif session is not None and isinstance(wire_id, str | int):
            self._asking.take(request, session, message)

    async def _notified(self, request: Request | None, method: str, params: JSON | None) -> None:
        if method == "notifications/cancelled" and params is not None:
            self._asking.withdrawn(params.get("requestId"))
        if method == "notifications/progress" and not await self._progressed(request, params or {}):
            return
        if method == "notifications/tools/list_changed":
            self._link.tools.forget()
        if request is not None and request.own_id is not None:
            params = renamed(params, request)
        await self._hand_on(method, params)
        if request is not None and request.own_id is not None and method.endswith("/acknowledged"):
            for changed, about in after_a_gap(request):
                await self._hand_on(changed, about)

    async def _hand_on(self, method: str, params: JSON | None) -> None:
        if not run_notify_intercept(self._intercept, method, params) and self._on_notify is not None:
            await self._on_notify(Inbound(), method, params)

    async def _progressed(self, request: Request | None, params: JSON) -> bool:
        """Tell of progress that moves forward. False for what is late, doubled, or of no request of ours."""
        if request is None or not request.moves_forward(params):
            return False
        value, total, text = request.progress, params.get("total"), params.get("message")
        total = total if isinstance(total, int | float) else None
        text = text if isinstance(text, str) else None
        if self._bulletin.is_read:
            meta = params.get("_meta")
            meta = meta if isinstance(meta, dict) else {}
            name, mark = str(meta.get(META + "stage") or ""), str(meta.get(META + "mark") or "")
            self._link.tell(
                events.Stage(**names(request), progress=value, total=total, message=text, name=name, mark=mark)
            )
        if request.on_progress is not None:
            try:
                await request.on_progress(value, total, text)
            except Exception:
                _log.exception("a progress callback failed")
        return True
