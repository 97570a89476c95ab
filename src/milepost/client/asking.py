"""The questions of handshake-era streams: each is one task, however often and on however many streams it is sent.

A question is shown to a person once. While it is open, another sending of it (on a stream that was taken up again, or
in a new session) only changes where the answer goes. An answer is kept with its interaction and sent until the server
has acknowledged it, closed the question, or forgotten the session; in the last case the question comes again, and is
answered from what is kept.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol
from weakref import WeakKeyDictionary

import anyio
from mcp import MCPError
from mcp_types import INTERNAL_ERROR, INVALID_PARAMS, RequestId

from milepost.client.errors import OutcomeUnknown
from milepost.client.events import Answered, Event, Question
from milepost.client.inbound import Inbound
from milepost.client.interaction import JSON, QUESTIONS, Asked, Interaction
from milepost.client.policy import Policy
from milepost.client.request import Request
from milepost.client.retrying import Fault, SessionGone, delay
from milepost.loggers import Logger

_log = Logger(__name__)

_MOST_REPLIES = 200
"""On their way at the same time, to what nobody is asked about: thrice what a call may ask at once, and then some."""


class Sender(Protocol):
    """What `Asking` needs of the link."""

    policy: Policy
    most_questions: int
    """Of one call, in all."""

    def spawn(self, work: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> None: ...

    async def post(self, session: Any, message: JSON) -> None:
        """Send a message that has no response of its own. Raises Fault, SessionGone, MCPError."""
        ...

    async def answer(self, inbound: Inbound, method: str, params: JSON) -> JSON:
        """Ask the caller's callbacks. Raises MCPError."""
        ...

    @property
    def record(self) -> Callable[[Interaction], Awaitable[None]]: ...

    def tell(self, event: Event) -> None: ...

    def undelivered(self, request: Request, fault: Fault) -> None:
        """An answer can't be given to the server, so the request would wait for ever: end it."""
        ...


@dataclass(eq=False, slots=True)
class Open:
    """A question that is being asked, or whose answer is on its way."""

    asked: Asked
    session: Any
    interaction: Interaction
    request: Request | None
    scope: anyio.CancelScope = field(default_factory=anyio.CancelScope)


class Asking:
    """All open questions of one link."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._open: dict[tuple[str, str], Open] = {}
        """By interaction and key."""
        self._outside: WeakKeyDictionary[Any, Interaction] = WeakKeyDictionary()
        """What each session asks outside of any call."""
        self._replying = 0

    def take(self, request: Request | None, session: Any, message: JSON) -> None:
        """A server's request, from the stream of `request`, or from the session's own. Doesn't wait."""
        method, params = message["method"], message.get("params")
        params = params if isinstance(params, dict) else {}
        if method not in QUESTIONS:
            self._reply_to(session, message["id"], self._plain, method, params)
            return
        interaction = request.interaction if request is not None else self._of(session)
        try:
            asked = interaction.meet(method, params, message["id"])
        except ValueError as exc:
            self._reply_to(session, message["id"], self._refuse, f"this can't be asked: {exc}")
            return
        if (interaction.call_id, asked.key) not in self._open and self._has_enough(interaction):
            if asked.reply is None:
                interaction.drop(asked)
            text = f"this client answers at most {self._limit} questions of one call at a time"
            self._reply_to(session, message["id"], self._refuse, text)
            return
        self._meet(asked, interaction, request, session, message["id"])

    def _of(self, session: Any) -> Interaction:
        return self._outside.setdefault(session, Interaction("session"))

    def _has_enough(self, interaction: Interaction) -> bool:
        return len([one for one in self._open.values() if one.interaction is interaction]) >= self._limit

    def _reply_to(
        self, session: Any, wire_id: RequestId, how: Callable[..., Coroutine[Any, Any, Any]], *what: Any
    ) -> None:
        """Without asking anyone. A server that asks faster than it takes replies gets no more of them for now."""
        if self._replying < _MOST_REPLIES:
            self._replying += 1
            self._sender.spawn(self._replied, how, session, wire_id, *what)

    async def _replied(self, how: Callable[..., Coroutine[Any, Any, Any]], *what: Any) -> None:
        try:
            await how(*what)
        finally:
            self._replying -= 1

    def take_up(self, request: Request, session: Any) -> None:
        """Go on with what an earlier process left: ask what is open, send what is not acknowledged."""
        for asked in request.interaction.asked.values():
            if not asked.acknowledged and asked.wire_id is not None:
                self._meet(asked, request.interaction, request, session, asked.wire_id)

    def _meet(
        self, asked: Asked, interaction: Interaction, request: Request | None, session: Any, wire_id: RequestId
    ) -> None:
        there = self._open.get((interaction.call_id, asked.key))
        if there is not None and there.asked is asked:
            there.session, asked.wire_id = session, wire_id
            return
        if there is not None:
            there.scope.cancel()  # asked anew in other words: the server says why
        asked.wire_id = wire_id
        question = Open(asked, session, interaction, request)
        self._open[interaction.call_id, asked.key] = question
        self._sender.spawn(self._go, question)

    @property
    def _limit(self) -> int:
        return self._sender.policy.max_open_questions

    # --- one question --------------------------------------------------------------------------------

    async def _go(self, question: Open) -> None:
        place = (question.interaction.call_id, question.asked.key)
        try:
            with question.scope:
                while True:
                    again = question.asked.reply is not None
                    if not again:
                        await self._ask(question)
                    if not await self._is_asked_once_more(question, again):
                        break
        except Exception as exc:  # the journal can't be written: the call must not go on as if it could
            if question.request is None:
                _log.exception("a question could not be dealt with", key=question.asked.key)
            else:
                question.request.break_off(exc)
        finally:
            if self._open.get(place) is question:
                del self._open[place]
            if question.request is None:
                question.interaction.drop(question.asked)

    async def _ask(self, question: Open) -> None:
        asked, request = question.asked, question.request
        question.interaction.times_asked += 1
        if request is not None and question.interaction.times_asked > self._sender.most_questions:
            text = f"{request.name} asked more than {self._sender.most_questions} times (input_required_max_rounds)"
            raise OutcomeUnknown(text, call_id=question.interaction.call_id)
        self._sender.tell(_shown(asked, question.interaction))
        await self._sender.record(question.interaction)
        if request is not None:
            request.a_person_is_asked()
        try:
            reply = await self._reply(asked)
        finally:
            if request is not None:
                request.a_person_has_answered()
        asked.reply = reply
        await self._sender.record(question.interaction)
        self._sender.tell(Answered(**_names(question.interaction), key=asked.key, acknowledged=False))

    async def _reply(self, asked: Asked) -> JSON:
        assert asked.wire_id is not None  # noqa: S101  a stream's question always has one
        try:
            return {"result": await self._sender.answer(Inbound(asked.wire_id), asked.method, asked.params)}
        except MCPError as exc:
            return {"error": exc.error.model_dump(mode="json", exclude_none=True)}
        except Exception as exc:
            _log.exception("a callback failed on a question", method=asked.method)
            return {"error": {"code": INTERNAL_ERROR, "message": str(exc) or type(exc).__name__}}

    async def _is_asked_once_more(self, question: Open, again: bool) -> bool:
        """Send the answer. True: the server did not like it, and has asked once more meanwhile, in the same words."""
        asked = question.asked
        sent_to = await self._deliver(question, again)
        if sent_to is None:
            return False
        asked.reply = None  # also where it is still to ask again
        await self._sender.record(question.interaction)
        return asked.wire_id != sent_to

    async def _deliver(self, question: Open, again: bool) -> RequestId | None:
        """Until the server has it. Returns the id of the sending whose answer the server refused, if it did."""
        asked, failures, began = question.asked, 0, anyio.current_time()
        while asked.reply is not None:
            sent_to = asked.wire_id
            try:
                await self._sender.post(question.session, {"jsonrpc": "2.0", "id": sent_to, **asked.reply})
            except SessionGone:
                # The question comes again, if its call does; and the call need not wait to find out.
                if question.request is not None and question.request.response is not None:
                    question.request.response.give_up()
                return None
            except MCPError as exc:
                _log.info("an answer was not taken", key=asked.key, reason=exc.message)
                return sent_to if exc.code == INVALID_PARAMS else None
            except Fault as fault:
                failures += 1
                policy = self._sender.policy
                if not fault.again or anyio.current_time() - began > policy.give_up_after:
                    if question.request is not None:
                        self._sender.undelivered(question.request, fault)
                    return None
                await anyio.sleep(delay(policy, failures, random.random(), fault.retry_after))  # noqa: S311  jitter
                continue
            if asked.wire_id == sent_to:
                break
        asked.acknowledged = True
        await self._sender.record(question.interaction)
        self._sender.tell(Answered(**_names(question.interaction), key=asked.key, acknowledged=True, again=again))
        return None

    # --- the rest ------------------------------------------------------------------------------------

    def withdrawn(self, wire_id: object) -> None:
        """The server takes a question back: it was closed another way."""
        for question in list(self._open.values()):
            if question.asked.wire_id == wire_id and question.asked.reply is None:
                del question.interaction.asked[question.asked.key]
                question.scope.cancel()

    def over(self, interaction: Interaction) -> None:
        """The call has ended: nobody need answer what it asked."""
        for question in [one for one in self._open.values() if one.interaction is interaction]:
            question.scope.cancel()

    def lost(self, session: Any) -> None:
        """The session is gone: what it asked outside of calls is not asked any more."""
        for question in [one for one in self._open.values() if one.request is None and one.session is session]:
            question.scope.cancel()

    async def _plain(self, session: Any, wire_id: RequestId, method: str, params: JSON) -> None:
        """A request that nobody is asked about (ping): answered once; the server asks again if it must."""
        try:
            reply: JSON = {"result": await self._sender.answer(Inbound(wire_id), method, params)}
        except MCPError as exc:
            reply = {"error": exc.error.model_dump(mode="json", exclude_none=True)}
        except ValueError:
            reply = {"error": {"code": INVALID_PARAMS, "message": f"these are no params of {method}"}}
        await self._say(session, {"jsonrpc": "2.0", "id": wire_id, **reply})

    async def _refuse(self, session: Any, wire_id: RequestId, text: str) -> None:
        await self._say(session, {"jsonrpc": "2.0", "id": wire_id, "error": {"code": INTERNAL_ERROR, "message": text}})

    async def _say(self, session: Any, message: JSON) -> None:
        try:
            await self._sender.post(session, message)
        except Exception as exc:  # also of an `auth`: no call waits for this
            _log.info("a reply was not taken", reason=str(exc))


def _names(interaction: Interaction) -> dict[str, Any]:
    return {"call_id": interaction.call_id, "trace_id": interaction.trace_id}


def _shown(asked: Asked, interaction: Interaction) -> Question:
    return Question(
        **_names(interaction), key=asked.key, method=asked.method, message=asked.message, params=asked.params
    )
