"""What is done about a try that failed: wait and try again as long as that is safe, or say what is known and stop.

Safe means: nothing can have been done (not sent, or refused), or doing it twice is doing it once. Retries cost a budget
that all calls to a server share, wait with full jitter, and end when the server has given no sign of life for
`Policy.give_up_after`. A server that fails for everybody is left alone for a while (the circuit breaker).
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any, Final

import anyio
from mcp import MCPError
from mcp_types import METHOD_NOT_FOUND

from milepost.client import events, telemetry
from milepost.client.errors import (
    CallError,
    CircuitOpen,
    NotSent,
    OutcomeUnknown,
    Refused,
    ServerUnavailable,
    Unauthorized,
)
from milepost.client.events import Event
from milepost.client.interaction import JSON, META, Interaction
from milepost.client.origins import Origin
from milepost.client.policy import Policy
from milepost.client.request import Request
from milepost.client.retrying import Circuit, Fault, Known, StreamEnded, ceiling, delay
from milepost.client.tools import Tools

_HARMLESS: Final = frozenset(
    {
        "initialize", "server/discover", "ping", "tools/list", "resources/list", "resources/templates/list",
        "resources/read", "resources/subscribe", "resources/unsubscribe", "prompts/list", "prompts/get",
        "completion/complete", "logging/setLevel", "subscriptions/listen", "tasks/get", "tasks/update", "tasks/cancel",
    }
)  # fmt: skip
"""Methods that may be sent again whatever came of them: they only read, or saying them twice is saying them once."""

_MAY_BE_A_NO: Final = (500, 501)
"""Older servers say these to a method that they don't know; any server may say them while it is ill."""
_PROBES: Final = 5
"""So the version probe is sent again so often, in two or three seconds, before such a status counts as a no."""

_EMPTY: Final = 3
"""Times in a row that a stream may be empty, however long the server keeps its client away in between."""

Pursue = Callable[[Request], Awaitable[JSON]]


class Mender:
    """Decides for one link."""

    def __init__(self, policy: Policy, origin: Origin, tell: Callable[[Event], None], pursue: Pursue) -> None:
        self.tools = Tools()
        self._policy = policy
        self._origin = origin
        self._tell = tell
        self._pursue = pursue

    # --- before a try --------------------------------------------------------------------------------

    async def admit(self, request: Request) -> None:
        """Wait while the server is given a rest. Raises where that takes longer than the request may wait."""
        breaker = self._origin.breaker
        while (wait := breaker.wait(anyio.current_time())) > 0:
            if anyio.current_time() + wait - request.heard > self._policy.give_up_after:
                raise self._rested(request, wait)
            await anyio.sleep(min(wait, self._policy.breaker_rest))  # another caller may find it well meanwhile
        breaker.trying(anyio.current_time())

    def _rested(self, request: Request, wait: float) -> Exception:
        failures, last = self._origin.breaker.failures, self._origin.trouble
        text = f"this server failed {failures} times in a row and is left alone for {wait:.1f} s ({last})"
        if request.method == "server/discover":
            return ServerUnavailable(text)
        if request.known is not Known.NOT_SENT:
            return self.ended(request, Fault(Known.NOT_SENT, text))
        return CircuitOpen(text, call_id=request.interaction.call_id, retry_after=wait)

    # --- after a try ---------------------------------------------------------------------------------

    async def mend(self, request: Request, fault: Fault) -> None:
        """Wait for another try. Raises what is known of the request where there is to be none."""
        request.met(fault)
        if not request.failures and (request.asking or self._origin.may_be_silent(request.method)):
            request.heard = anyio.current_time()  # till now there was no need for it to say anything
        if isinstance(fault, StreamEnded):
            if await self._came_back(request):
                return
            fault = Fault(Known.UNKNOWN, "its stream was empty again and again")
        if fault.again:
            self._ill(fault.reason)
        if not await self._may_go_on(request, fault):
            raise self.ended(request, fault) from fault
        request.failures += 1
        wait = delay(self._policy, request.failures, random.random(), fault.retry_after)  # noqa: S311  jitter
        if request.resumable and request.failures == 1 and request.retry is not None:
            wait = request.retry
        now = anyio.current_time()
        if now + wait - request.heard > self._policy.give_up_after or not self._origin.budget.take(now):
            raise self.ended(request, fault) from fault
        self._tell(events.Retrying(**names(request), reason=fault.reason, delay=wait, attempt=request.tries + 1))
        await anyio.sleep(wait)

    async def _came_back(self, request: Request) -> bool:
        """Wait for as long as the server wants its client away; longer each time that it then said nothing.

        False: it has said nothing for too long. Its stream is then given up.
        """
        wait = self._policy.first_delay if request.retry is None else request.retry
        if request.failures:
            wait = max(wait, ceiling(self._policy, request.failures))
        for_long = anyio.current_time() - request.heard > self._policy.give_up_after
        if for_long and request.failures > _EMPTY and not request.asking:
            request.last_event_id = None
            request.sign_of_life()  # what follows is another try, with time of its own
            return False
        request.failures += 1  # an event will say otherwise
        await anyio.sleep(max(self._policy.poll_first, min(wait, self._policy.max_retry_after)))
        return True

    async def _may_go_on(self, request: Request, fault: Fault) -> bool:
        if not fault.again:
            return request.stubborn and fault.status in (404, 405)
        if request.method == "server/discover" and fault.status in _MAY_BE_A_NO:
            return request.failures < _PROBES
        if fault.known is not Known.UNKNOWN or request.resumable:
            return True
        if not await self._is_safe(request):
            return False
        telemetry.recovered("re-issued")
        return True

    async def _is_safe(self, request: Request) -> bool:
        """Whether this request may be sent again although it may have been done."""
        if request.method in _HARMLESS:
            return True
        call = request.interaction
        if call.reissue is not None:
            call.settled = not call.reissue
            return call.reissue
        if request.method != "tools/call":
            return False
        learned = self.tools.knows(request.name) or await self._learn_tools(request)
        safe = self.tools.may_be_reissued(request.name)
        call.settled = learned and not safe
        return safe

    async def _learn_tools(self, request: Request) -> bool:
        """Read the tool list, as this request would: what a tool declares says whether it may be called again.

        False: it can't be read.
        """
        cursor: str | None = None
        for _ in range(self._policy.max_tool_pages):
            try:
                result = await self._pursue(_listing(request, cursor))
            except (CallError, MCPError, ServerUnavailable):
                return False
            self.learn(result)
            following = result.get("nextCursor")
            if not isinstance(following, str) or self.tools.knows(request.name):
                return True
            cursor = following
        return True

    def learn(self, listed: JSON) -> None:
        """Take in the result of a `tools/list`."""
        self.tools.learn(listed)
        self._origin.gives_signs |= self.tools.are_milepost

    # --- the server's health ---------------------------------------------------------------------------

    def _ill(self, reason: str) -> None:
        self._origin.trouble = reason
        self.tools.forget()  # what comes back may be another build
        before = self._origin.breaker.state
        self._origin.breaker.failed(anyio.current_time())
        self._tell_circuit(before)

    def alive(self) -> None:
        """The server has taken a request: it is trusted again, however long the answer takes."""
        before = self._origin.breaker.state
        self._origin.breaker.succeeded()
        self._tell_circuit(before)

    def went_through(self) -> None:
        """A request has its result, which gives something back to the budget."""
        self._origin.budget.succeeded()

    def _tell_circuit(self, before: Circuit) -> None:
        if self._origin.breaker.state is not before:
            self._tell(events.CircuitChanged(state=self._origin.breaker.state.value))

    # --- endings ---------------------------------------------------------------------------------------

    def ended(self, request: Request, fault: Fault) -> Exception:
        """What to raise where there is no further try: the truth over all of them."""
        request.met(fault)
        self._tell(events.GaveUp(**names(request), reason=fault.reason, known=request.known.value))
        if request.method == "server/discover":
            return _no_contact(fault)
        if request.method == "initialize" and not request.stubborn and (fault.again or fault.known is Known.NOT_SENT):
            return ServerUnavailable(f"no connection could be made: {fault.reason}")
        call_id, about = request.interaction.call_id, request.about
        if request.known is Known.UNKNOWN:
            text = f"{about} was sent, and its outcome is unknown: {fault.reason}"
            return OutcomeUnknown(text, call_id=call_id)
        if fault.status in (401, 403):
            text = f"{about}: the server wants authorization ({fault.status})"
            return Unauthorized(text, call_id=call_id, status=fault.status)
        if fault.said is not None:
            return fault.said
        if request.known is Known.NOT_SENT:
            return NotSent(f"{about} was not sent: {fault.reason}", call_id=call_id)
        return Refused(f"{about} was refused: {fault.reason}", call_id=call_id, status=fault.status)

    def without_session(self, request: Request, why: Exception) -> Exception:
        """No session could be opened for a request: what is known of the request itself."""
        if request.known is Known.UNKNOWN or not isinstance(why, CallError):
            return self.ended(request, Fault(Known.NOT_SENT, f"no new session could be opened: {why}"))
        why.call_id = request.interaction.call_id
        self._tell(events.GaveUp(**names(request), reason=str(why), known=request.known.value))
        return why


def names(request: Request) -> dict[str, Any]:
    """What every event of a request carries."""
    return {"call_id": request.interaction.call_id, "trace_id": request.interaction.trace_id}


def _listing(request: Request, cursor: str | None) -> Request:
    """A `tools/list` in the envelope of another request."""
    meta = {key: value for key, value in request.params["_meta"].items() if not key.startswith(META)}
    meta.pop("progressToken", None)
    headers = {k: v for k, v in request.headers.items() if not k.lower().startswith(("mcp-param-", "mcp-name"))}
    for name in headers:
        if name.lower() == "mcp-method":
            headers[name] = "tools/list"
    params: JSON = {"_meta": meta} if cursor is None else {"_meta": meta, "cursor": cursor}
    listing = Request("tools/list", params, headers, Interaction("tools/list"), modern=request.modern)
    listing.heard = request.heard
    return listing


def _no_contact(fault: Fault) -> Exception:
    """The version probe: only a server's own no leads to the older protocol, never its absence or its overload."""
    if fault.status in (401, 403):
        return Unauthorized(f"the server wants authorization ({fault.status})", status=fault.status)
    if fault.status in _MAY_BE_A_NO or (fault.status and fault.status < 500 and fault.status not in (408, 425, 429)):
        return MCPError(METHOD_NOT_FOUND, fault.reason)
    if fault.known is Known.UNKNOWN and not fault.again:
        return MCPError(METHOD_NOT_FOUND, fault.reason)
    return ServerUnavailable(f"no connection could be made: {fault.reason}")
