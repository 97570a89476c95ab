"""A run's events as one request's messages. Pure: nothing here waits, reads or sends.

A stream lends a run's events its request id and its progress token. Rules:

- An event is at most one message, and the same event on the same stream is the same bytes whenever it is
  read again: the id of a question is made from the event's own id, and needs no row.
- Progress never falls. Progress between events, and heartbeats, have no event id.
- A question goes out while it is open and this client declared that it can be asked; when it is closed another
  way, what this stream sent of it is withdrawn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from milepost.core import ids
from milepost.core.records import Event, EventKind, JSONObject, Outcome, Question, Run, Stream
from milepost.core.replies import QUESTIONS, capability_for
from milepost.core.states import RunState
from milepost.engine.hub import Glimpse
from milepost.wire import rpc
from milepost.wire.by_hand import key_of
from milepost.wire.rpc import Message

META = "milepost/"
"""Prefix of our `_meta` keys."""

_BEAT = 0.000_001
"""By how much a heartbeat raises progress: seen as movement, and overtaken by any real step or mark of a stage."""

Shape = Callable[[JSONObject], Message]
"""Puts a tool result of the inner kernel into the form of the client's wire."""


# --- framing (WHATWG server-sent events) --------------------------------------------------------


def frame(message: object, event_id: str | None = None) -> bytes:
    """One message as one SSE event."""
    data = rpc.encode(message)
    if event_id is None:
        return b"event: message\r\ndata: " + data + b"\r\n\r\n"
    return b"id: " + event_id.encode() + b"\r\nevent: message\r\ndata: " + data + b"\r\n\r\n"


def priming(event_id: str, retry: float) -> bytes:
    """An event without data, that gives a client a point to come back to before anything was said (2025-11-25)."""
    return b"id: %b\r\nretry: %d\r\ndata: \r\n\r\n" % (event_id.encode(), int(retry * 1000))


def farewell(retry: float) -> bytes:
    """What the server says before it closes a stream that isn't finished: when to come back."""
    return b"retry: %d\r\n\r\n" % int(retry * 1000)


COMMENT = b": still here\r\n\r\n"


# --- questions ----------------------------------------------------------------------------------


def sending_id(event_id: str) -> str:
    """The JSON-RPC id of a question as sent: unguessable, for 96 bits of it are the stream's."""
    return f"q-{event_id}"


def parse_sending_id(request_id: object) -> tuple[str, int] | None:
    """(stream, n) of an answer's id, or None where the id is of no question of ours."""
    if not isinstance(request_id, str) or not request_id.startswith("q-"):
        return None
    return ids.parse_event_id(request_id[2:])


def can_ask(method: str, params: Mapping[str, Any], capabilities: Mapping[str, Any]) -> bool:
    """Whether a client with these capabilities may be asked this (elicitation without modes means forms)."""
    declared = capabilities.get(capability_for(method)) if method in QUESTIONS else None
    if declared is None:
        return False
    if method != "elicitation/create":
        return True
    mode = params.get("mode", "form")
    return mode in declared or (mode == "form" and not declared.keys() & {"form", "url"})


def as_sent(question: Question, note: str | None) -> Message:
    """A question's params as a client gets them: which question of which run it is, and why it is asked anew.

    The names in `_meta` are the same however often, and wherever, it is sent, so that a client that was interrupted
    can know it again.
    """
    params = dict(question.params)
    if note and "message" in params:
        params["message"] = f"{params['message']}\n\nThe last answer was not accepted: {note}"
    names = {META + "run_id": question.run_id, META + "question": key_of(question.id)}
    return {**params, "_meta": {**(params.get("_meta") or {}), **names}}


# --- rendering ----------------------------------------------------------------------------------


@dataclass(slots=True)
class Progress:
    """What a stream has shown of progress: it only ever rises."""

    token: str | int | None
    last: float = -1.0
    total: float | None = None

    def step(
        self, progress: float, total: float | None, message: str | None, meta: Message | None = None
    ) -> Message | None:
        """A progress notification, or None if there is no token or it would not rise."""
        if self.token is None or progress <= self.last:
            return None
        self.last, self.total = progress, total
        params: Message = {"progressToken": self.token, "progress": progress}
        if total is not None:
            params["total"] = total
        if message is not None:
            params["message"] = message
        if meta is not None:
            params["_meta"] = meta
        return rpc.notification("notifications/progress", params)

    def beat(self, message: str | None = None) -> Message | None:
        """A small step that says no more than that work goes on, or, in `message`, why it does not."""
        return self.step(round(max(self.last, 0.0) + _BEAT, 6), self.total, message)


@dataclass(slots=True)
class Rendering:
    """One stream's view of one run."""

    stream: Stream
    capabilities: Mapping[str, Any]
    shape: Shape
    trace_id: str = ""
    started_at: float = 0.0
    offset: int = 0
    """Added to event numbers: what came of a run that was merged into this one counts first."""
    progress: Progress = field(init=False)
    sent: dict[int, str] = field(default_factory=dict)
    """Questions that this stream has sent and that are still open: question id to JSON-RPC id."""

    def __post_init__(self) -> None:
        self.progress = Progress(self.stream.progress_token)

    def event_id(self, event: Event) -> str:
        return ids.event_id(self.stream.id, self.offset + event.n)

    def message(self, event: Event, questions: Mapping[int, Question]) -> Message | None:
        """What this stream says of an event. `questions`: the run's open ones, by id (needed for QUESTION only)."""
        body = event.body
        match event.kind:
            case EventKind.QUESTION:
                return self._question(event, questions.get(body["question"]))
            case EventKind.CLOSED:
                return self._closed(body)
            case EventKind.STAGE:
                text = body["stage"] if body["mark"] == "begin" else f"{body['stage']}: done"
                meta = {META + "stage": body["stage"], META + "mark": body["mark"]}
                return self.progress.step(body["progress"], body.get("total"), text, meta)
            case EventKind.PROGRESS:
                return self.progress.step(body["progress"], body.get("total"), body.get("message"))
            case EventKind.NOTIFY:
                return rpc.notification(body["method"], body.get("params"))
            case EventKind.RESULT:
                return self.result(event.run_id, body)
            case _:
                return None

    def glimpse(self, glimpse: Glimpse) -> Message | None:
        return self.progress.step(glimpse.progress, glimpse.total, glimpse.message)

    def answered(self, question: int) -> None:
        """This question's answer came over this stream's own sending: nothing to withdraw."""
        self.sent.pop(question, None)

    def withdrawals(self, reason: str) -> list[Message]:
        """Takes back all that is still open of what this stream sent."""
        taken, self.sent = list(self.sent.values()), {}
        return [_withdrawal(request_id, reason) for request_id in taken]

    def onto(self, run: Run) -> Rendering:
        """The same stream, going on with the run that its own was merged into; `run` is the finished one."""
        moved = replace(self, offset=self.offset + run.event_seq, sent={})
        moved.progress = self.progress
        return moved

    def result(self, run_id: str, outcome: JSONObject) -> Message:
        """The response of this stream's request. `outcome`: an `Outcome` as JSON."""
        error = outcome.get("error")
        if error is not None:
            return {"jsonrpc": "2.0", "id": self.stream.request_id, "error": error}
        return rpc.success(self.stream.request_id, self.stamped(run_id, self.shape(outcome["result"] or {})))

    def plain(self, outcome: Outcome) -> Message:
        """The response of a call without rows."""
        if outcome.error is not None:
            return {"jsonrpc": "2.0", "id": self.stream.request_id, "error": outcome.error}
        return rpc.success(self.stream.request_id, self.shape(outcome.result or {}))

    def stamped(self, run_id: str, result: Message) -> Message:
        """The result with `_meta` that says which run it is of, and whether it was found, not started."""
        meta: Message = {META + "run_id": run_id, META + "trace_id": self.trace_id}
        if self.stream.attached:
            meta |= {META + "attached": True, META + "started_at": self.started_at}
        return {**result, "_meta": {**(result.get("_meta") or {}), **meta}}

    def _question(self, event: Event, question: Question | None) -> Message | None:
        if question is None or not can_ask(question.method, question.params, self.capabilities):
            return None
        request_id = sending_id(self.event_id(event))
        self.sent[question.id] = request_id
        params = as_sent(question, event.body.get("note"))
        params["_meta"][META + "request"] = self.stream.request_id  # a pipe doesn't say which call asks
        return {"jsonrpc": "2.0", "id": request_id, "method": question.method, "params": params}

    def _closed(self, body: JSONObject) -> Message | None:
        request_id = self.sent.pop(body["question"], None)
        if request_id is None or request_id == sending_id(str(body.get("via"))):
            return None
        return _withdrawal(request_id, f"the question is closed: {body.get('state', 'answered')}")


def _withdrawal(request_id: str, reason: str) -> Message:
    return rpc.notification("notifications/cancelled", {"requestId": request_id, "reason": reason})


def at_rest(event: Event) -> bool:
    """Whether this event says that the run has come to rest: it waits, or needs a person."""
    return event.kind is EventKind.STATE and event.body.get("state") in (RunState.WAITING, RunState.STUCK)
