"""One request on its way: what it says, how often it was tried, and its two clocks.

The working clock is the caller's time limit. It stands still while a person is asked, and progress renews it. The other
clock counts from the server's last sign of life, and ends a request whose server is gone.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import pydantic_core
from mcp.shared.dispatcher import CallOptions, ProgressFnT
from mcp_types import RequestId

from milepost.client.exchange import Response
from milepost.client.interaction import CALL_ID, JSON, Interaction
from milepost.client.retrying import Fault, Known
from milepost.client.telemetry import trace_in

MODERN, HANDSHAKE = "modern", "handshake"


@dataclass(eq=False, slots=True)
class Request:
    """`params`: as they go out, `_meta` included."""

    method: str
    params: JSON
    headers: Mapping[str, str]
    interaction: Interaction
    modern: bool
    token: RequestId | None = None
    """The progress token; None: nobody wants to know."""
    on_progress: ProgressFnT | None = None
    timeout: float | None = None
    cancel_on_abandon: bool = True
    own_id: RequestId | None = None
    """An id that the caller chose (`subscriptions/listen` is told apart by it)."""
    on_token: Callable[[str], Awaitable[None]] | None = None
    """Told of each event id (the official client's resumption token)."""
    wire_id: RequestId | None = None
    """Of the newest sending."""
    tries: int = 0
    underway: bool = False
    """It is being sent, or was and has no response yet."""
    failures: int = 0
    """In a row, since the last sign of life."""
    heard: float = 0.0
    """When the server last gave a sign of life, monotonic seconds."""
    progress: float = -math.inf
    last_event_id: str | None = None
    stands_in: Any = None
    """The session whose stream that is of; None: a caller's token, of any."""
    retry: float | None = None
    """Seconds after which the server wants its client back on this stream."""
    response: Response | None = None
    session: Any = None
    """The session of the newest try."""
    known: Known = Known.NOT_SENT
    """What is known of it, over all tries: one of unknown outcome makes the whole unknown."""
    stubborn: bool = False
    """A server that spoke this protocol a moment ago may say 404 while it is being replaced: try on."""
    trouble: str = ""
    """What was wrong with the newest try that failed."""
    broken: Exception | None = None
    """Something beside it failed that it can't go on without (the journal)."""
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)
    longest: float = math.inf
    """Seconds of work after which even progress renews nothing."""
    _asking: int = 0
    _left: float = math.inf
    _end: float = math.inf

    # --- the working clock ---------------------------------------------------------------------------

    def start_clock(self) -> None:
        if self.timeout is not None:
            self._end = anyio.current_time() + self.longest
            self.scope.deadline = min(self._end, anyio.current_time() + self.timeout)

    def renew_clock(self) -> None:
        """Progress was made."""
        if self.timeout is None:
            return
        if self._asking:
            self._left = self.timeout
        else:
            self.scope.deadline = min(self._end, anyio.current_time() + self.timeout)

    def break_off(self, why: Exception) -> None:
        """End it with this error."""
        self.broken = why
        self.scope.cancel()

    def a_person_is_asked(self) -> None:
        """Time stands still until `a_person_has_answered` as often."""
        self._asking += 1
        if self._asking == 1:
            self._left = self.scope.deadline - anyio.current_time()
            self._end -= anyio.current_time()
            self.scope.deadline = math.inf
            if self.response is not None:
                self.response.be_patient(True)

    def a_person_has_answered(self) -> None:
        self._asking -= 1
        if self._asking == 0:
            self.heard = anyio.current_time()
            self._end += anyio.current_time()
            self.scope.deadline = min(self._end, anyio.current_time() + self._left)
            if self.response is not None:
                self.response.be_patient(False)

    @contextmanager
    def a_person_is_needed(self) -> Iterator[None]:
        """Time stands still inside."""
        self.a_person_is_asked()
        try:
            yield
        finally:
            self.a_person_has_answered()

    @property
    def asking(self) -> bool:
        return self._asking > 0

    @property
    def resumable(self) -> bool:
        """Its stream can be read on, so nothing need be sent again."""
        return self.last_event_id is not None and not self.modern

    # --- the server's clock --------------------------------------------------------------------------

    def sign_of_life(self) -> None:
        self.heard = anyio.current_time()
        self.failures = 0

    def read(self, response: Response) -> None:
        self.response = response
        response.be_patient(self.asking)

    def moves_forward(self, params: JSON) -> bool:
        """Whether this progress is of this request, and more than was known; it is noted then."""
        value = params.get("progress")
        if self.token is None or params.get("progressToken") != self.token:
            return False
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= self.progress:
            return False
        self.progress = value
        self.renew_clock()
        return True

    def met(self, fault: Fault) -> None:
        """A try failed: what is known now."""
        self.trouble, self.underway = fault.reason, False
        if self.known is not Known.UNKNOWN and fault.known is not Known.NOT_SENT:
            self.known = fault.known

    @property
    def known_if_cut_off(self) -> Known:
        """What is known of it if it is ended from outside, now."""
        return Known.UNKNOWN if self.underway else Known.NOT_SENT

    # --- on the wire ---------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self.interaction.name

    @property
    def about(self) -> str:
        """The method, and the name of what it is about, for people to read."""
        return f"{self.method} {self.name}".strip()

    def body(self) -> bytes:
        return encode({"jsonrpc": "2.0", "id": self.wire_id, "method": self.method, "params": self.params})


def encode(message: Mapping[str, Any]) -> bytes:
    return pydantic_core.to_json(message, inf_nan_mode="null")


def params_of(
    params: Mapping[str, Any] | None, interaction: Interaction, context: Mapping[str, str], token: RequestId | None
) -> JSON:
    """The params as they go out: with a trace context (SEP-414), the call's id, and maybe a progress token."""
    out = dict(params or {})
    given = out.get("_meta") or {}
    meta = dict(given) if "traceparent" in given else {**context, **given}
    own = trace_in(meta["traceparent"])
    if own is not None:
        interaction.trace_id = own
    if interaction.method == "tools/call":
        meta.setdefault(CALL_ID, interaction.call_id)
    if token is not None:
        meta["progressToken"] = token
    out["_meta"] = meta
    return out


def target_of(method: str, params: Mapping[str, Any] | None) -> str:
    """The tool, prompt or resource that a request names, else nothing."""
    named = (params or {}).get("uri" if method.startswith("resources/") else "name")
    return named if isinstance(named, str) else ""


def interaction_of(method: str, params: Mapping[str, Any] | None, within: Interaction | None) -> Interaction:
    """The interaction that a request belongs to: the one that is current if it is this same call, else a new one."""
    if within is not None and within.method == method and within.name == target_of(method, params):
        return within
    made = Interaction(method, target_of(method, params))
    if within is not None:
        made.trace_id = within.trace_id
    return made


def stamped_version(opts: CallOptions) -> str:
    """The protocol version that the SDK stamped on this request, empty before there is one."""
    return (opts.get("headers") or {}).get("mcp-protocol-version", "")
