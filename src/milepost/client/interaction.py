"""One wish of a caller, from the first request to the result: its id, its trace, its questions and their answers.

An interaction outlives requests: it may take many rounds, streams and sessions, and with a journal several processes.
What a person answered is kept here until the interaction has ended, so a question that comes again (on another stream,
in a new session, from a call that was re-issued) is answered without asking anyone.

A question is known by what the server calls it (Milepost: `_meta["milepost/question"]`), else by what it asks and the
how-manieth time in this issue of the call: a server that starts the call over asks in the same order.
"""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Final

from mcp_types import RequestId

from milepost.core.digest import question_digest

JSON = dict[str, Any]
META: Final = "milepost/"
"""Prefix of Milepost's `_meta` keys."""
CALL_ID: Final = META + "call_id"
QUESTIONS: Final = frozenset({"elicitation/create", "sampling/createMessage", "roots/list"})


class Ending(Enum):
    """How an interaction stands."""

    OPEN = "open"
    RESULT = "result"
    ERROR = "error"
    CANCELLED = "cancelled"


@dataclass(slots=True)
class Asked:
    """A question, and what was answered."""

    key: str
    digest: str
    method: str
    params: JSON
    wire_id: RequestId | None = None
    """The JSON-RPC id of its newest sending; None in the modern era, where the key is all."""
    reply: JSON | None = None
    """`{"result": ...}` or `{"error": ...}`, once it is given."""
    acknowledged: bool = False

    @property
    def message(self) -> str:
        text = self.params.get("message")
        return text if isinstance(text, str) else ""

    def as_json(self) -> JSON:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(eq=False, slots=True)
class Interaction:
    """`params`: of the request, without `_meta` and what a round adds."""

    method: str
    name: str = ""
    params: JSON = field(default_factory=dict)
    reissue: bool | None = None
    call_id: str = field(default_factory=lambda: f"call-{secrets.token_hex(16)}")
    trace_id: str = field(default_factory=lambda: secrets.token_hex(16))
    begun: float = field(default_factory=time.time)
    ending: Ending = Ending.OPEN
    asked: dict[str, Asked] = field(default_factory=dict)
    request_state: str | None = None
    round_keys: dict[str, str] = field(default_factory=dict)
    """Of the round that is open: the server's key of each question, and ours."""
    session_id: str | None = None
    wire_id: RequestId | None = None
    last_event_id: str | None = None
    """Where its stream stands, in the handshake era."""
    sent: bool = False
    """Its newest round went out, or may have."""
    run_id: str = ""
    found: bool = False
    """It came out of a journal, so its first try is a resumption."""
    settled: bool = False
    """It was found out that it must not be sent again, so going on with it once more will tell no more."""
    may_be_made_anew: bool = False
    """The server forgot its rounds and did nothing; what was answered in them is kept for an equal call."""
    in_rounds: bool = False
    """Its rounds of questions are being gone through."""
    done: bool = False
    """Its result is here, and its caller has yet to get it."""
    tries: int = 0
    times_asked: int = 0
    """Questions of a session's streams that were put to somebody."""
    _counts: Counter[str] = field(default_factory=Counter)
    _met: set[str] = field(default_factory=set)
    """Keys of what was asked since the call was sent last: servers count their ids from one in each session."""

    def sending(self, wire_id: RequestId | None, session_id: str | None) -> None:
        """A request of it goes out."""
        self.tries += 1
        self.sent = True
        if self.request_state is None:  # from its beginning: what was answered before is asked anew, and still answered
            self._met.clear()
        self.wire_id, self.session_id, self.last_event_id = wire_id, session_id, None

    def from_its_beginning(self) -> None:
        """The handshake era has no rounds: a call that is sent asks from its start, and is counted from one."""
        self._counts.clear()
        self._met.clear()

    def started_over(self) -> None:
        """The call is made anew without the state of its rounds: what it asks is counted from one."""
        self.request_state, self.round_keys = None, {}
        self._counts.clear()
        self._met.clear()

    def meet(self, method: str, params: JSON, wire_id: RequestId | None = None) -> Asked:
        """The question that this is: a known one, maybe answered before, or a new one."""
        digest = question_digest(b"", method, params)
        for asked in self.asked.values():
            if wire_id is not None and asked.wire_id == wire_id and asked.digest == digest and asked.key in self._met:
                return asked  # the same sending, read again
        key = self._key(digest, params)
        known = self.asked.get(key)
        refused = wire_id is None and known is not None and known.acknowledged and key in self._met
        self._met.add(key)
        if known is None or known.digest != digest or refused:  # in a round, who asks once more did not like the answer
            known = self.asked[key] = Asked(key, digest, method, params, wire_id)
        elif wire_id is not None:
            known.wire_id = wire_id
        return known

    def drop(self, asked: Asked) -> None:
        """Forget a question."""
        self.asked.pop(asked.key, None)
        self._met.discard(asked.key)
        self._counts.pop(asked.digest, None)

    def _key(self, digest: str, params: JSON) -> str:
        meta = params.get("_meta")
        meta = meta if isinstance(meta, Mapping) else {}
        named = meta.get(META + "question")
        if isinstance(named, str):
            run = "" if self.name else f"{meta.get(META + 'run_id')}/"  # outside of calls, of any run
            return f"{run}{named}"[:100]
        self._counts[digest] += 1
        return f"{digest[:12]}.{self._counts[digest]}"

    def round(self, state: str | None, requests: JSON) -> dict[str, Asked]:
        """A round of questions came (2026-07-28 basic/patterns/mrtr). `requests`: by the server's key.

        Returns what each key asks.
        """
        self.request_state, self.sent = state, False
        found = {key: self.meet(one["method"], one.get("params") or {}) for key, one in requests.items()}
        self.round_keys = {key: asked.key for key, asked in found.items()}
        return found

    def taken(self) -> list[Asked]:
        """The server took the round's answers: they are its own now. Returns those that it had not had before."""
        asked = [one for key in self.round_keys.values() if (one := self.asked.get(key)) and not one.acknowledged]
        for one in asked:
            one.acknowledged = True
        self.request_state, self.round_keys = None, {}
        return asked

    @property
    def sent_ever(self) -> bool:
        """Whether the journal has it. A call over the SDK's own link is written down only when it asks."""
        return self.tries > 0 or self.found or bool(self.asked)

    @property
    def unanswered(self) -> list[Asked]:
        return [asked for asked in self.asked.values() if asked.reply is None]

    @property
    def keeps_answers(self) -> bool:
        """Whether somebody answered something: that must not be lost with a call that failed."""
        return any(asked.reply is not None for asked in self.asked.values())

    @property
    def owes_answers(self) -> bool:
        """Whether somebody answered something that the server has yet to take."""
        return any(asked.reply is not None and not asked.acknowledged for asked in self.asked.values())

    def as_json(self) -> JSON:
        """For the journal."""
        body = {name: getattr(self, name) for name in _KEPT}
        return {**body, "asked": [asked.as_json() for asked in self.asked.values()]}

    @classmethod
    def from_json(cls, call_id: str, begun: float, body: JSON) -> Interaction:
        """What `as_json` gave."""
        asked = [Asked(**{name: one[name] for name in Asked.__slots__ if name in one}) for one in body["asked"]]
        made = cls(call_id=call_id, begun=begun, **{name: body[name] for name in _KEPT if name in body})
        made.asked, made.found = {one.key: one for one in asked}, True
        made._counts, made._met = Counter(one.digest for one in asked), set(made.asked)
        return made


_KEPT: Final = (
    "method", "name", "params", "reissue", "trace_id", "request_state", "round_keys", "session_id", "wire_id",
    "last_event_id", "sent", "run_id",
)  # fmt: skip

current: ContextVar[Interaction | None] = ContextVar("milepost_interaction", default=None)
"""The interaction that a request made now belongs to; None: the request is one by itself."""
