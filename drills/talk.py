"""One conversation, whoever holds it: what the person answers, what is remembered, what is noted for the checks.

The clients themselves are in `over_http.py` and `over_stdio.py`. They are small and do by the specifications what a
correct client does when its server dies; the official SDK's own client gives up there.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any, TypeAlias

from drills.history import Told, text_of
from drills.pipes import Message, Unreached
from drills.servers import Life

CAPABILITIES: Message = {"elicitation": {"form": {}}, "sampling": {}}
CLIENT: Message = {"name": "drill", "version": "1"}
LIMIT = 240.0
"""Seconds that a conversation may take, kills and all."""
DROPS = 0.1
"""Share of its connections that a client closes itself."""
AGAIN = 0.05
"""Seconds between two tries to reach a server that isn't there."""

_ROOMS = ("garden", "street", "attic")
_WHICH = "An earlier '"


@dataclass(frozen=True, slots=True)
class Resumption:
    """How long a client that waited for its server was left without a word. UTC seconds."""

    era: str
    broke: float
    first: float
    began: float
    """When the process that answered was started; 0 where a balancer stands before it."""
    up: float | None
    back: float = 0.0
    """When the request was sent that a server then began to answer."""
    new: float = 0.0
    """When the client heard something new, a mere sign of life apart; 0: not before its end."""


@dataclass
class Dialog:
    """A question that the person has before them, or whose answer is on its way."""

    text: str
    sent_as: Any
    reply: Message
    given: bool = False
    posting: bool = False
    task: asyncio.Task[None] | None = None


AnswerSent: TypeAlias = "Callable[[Talk, int], None]"
"""Told when an answer's last byte has gone out, with the process that it went to."""


def nobody(talk: Talk, pid: int) -> None:
    return None


@dataclass(slots=True)
class Script:
    """What makes one conversation what it is, drawn from the seed."""

    name: str
    pace: float
    """Seconds that each outside effect takes."""
    thinks: float
    """Seconds that the person thinks, at most."""
    rng: random.Random = field(repr=False)


class Talk:
    """Base of the clients: subclasses do `converse`."""

    era = ""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.told = Told(script.name, self.era)
        self.resumptions: list[Resumption] = []
        self.on_answer_sent: AnswerSent = nobody
        self.pid = 0
        """The process that this client is, or was last, connected to."""
        self.listening = False
        self._life: Life | None = None
        self._dialogs: dict[str, Dialog] = {}
        self._acked: dict[str, int] = {}
        self._order = count(1)
        self._ids = count(1)
        self._owed: float | None = None
        self._sent = 0.0
        self._back: float | None = None
        self._unheard: Resumption | None = None
        """A client that was served again, but has heard nothing new yet."""
        self._furthest: float = -1.0
        self._operations = count(1)
        self.tool = "book_room"
        self.arguments: Message = {"conversation": script.name, "pace": script.pace}

    # --- life -------------------------------------------------------------------------------------

    async def run(self) -> Told:
        """Hold the conversation to its end."""
        try:
            async with asyncio.timeout(LIMIT):
                await self.converse()
                await self._settle()
        except TimeoutError:
            self.complain(f"no result after {LIMIT:g} s (phase {self.phase})")
        finally:
            self.forget()
        return self.told

    async def converse(self) -> None:
        """Until `told` has a result or an error."""
        raise NotImplementedError

    async def _settle(self) -> None:
        """Let answers that are still on their way be acknowledged."""
        tasks = [dialog.task for dialog in self._dialogs.values() if dialog.task and dialog.given]
        if tasks:
            await asyncio.gather(*tasks, return_exceptions=True)

    def forget(self) -> None:
        """The client's memory of open dialogs is gone: as when it is itself started anew."""
        for dialog in self._dialogs.values():
            if dialog.task is not None:
                dialog.task.cancel()
        self._dialogs.clear()

    @property
    def over(self) -> bool:
        return self.told.result is not None or self.told.error is not None

    @property
    def phase(self) -> str:
        """What a kill would hit right now, as far as this client knows."""
        if self.over:
            return "over"
        if any(dialog.posting for dialog in self._dialogs.values()):
            return "answering"
        if any(not dialog.given for dialog in self._dialogs.values()):
            return "thinking"
        return "listening" if self.listening else "starting"

    # --- breaks ----------------------------------------------------------------------------------

    def _connected(self, pid: int, life: Life | None) -> None:
        self.pid, self._life = pid, life

    def _drops_after(self) -> float | None:
        """Seconds after which this client closes a connection itself, now and then: its own network fails too."""
        rng = self.script.rng
        return rng.uniform(0.02, 1.0) if rng.random() < DROPS else None

    def _broke(self, *, dropped: bool = False) -> None:
        """The connection is gone. If the server owes us something, the clock runs."""
        thinking = self.phase == "thinking"
        if dropped:
            self.told.saw("dropped")
        elif self.listening:
            self.told.saw("broke")
        self.listening = False
        if self._owed is None and not thinking and not dropped:
            self._owed, self._back, self._unheard = time.time(), None, None

    def _taken_up(self) -> None:
        """A server has begun to answer."""
        if self._owed is not None and self._back is None:
            self._back = self._sent

    def _heard(self, place: float | None = None) -> None:
        """A message came: whoever waited was served. `place`: how far it is into the conversation; None: nowhere."""
        now = time.time()
        if self._owed is not None and self._life is not None:
            life = self._life
            self._unheard = Resumption(self.era, self._owed, now, life.began, life.up, self._back or now)
            self.resumptions.append(self._unheard)
        self._owed = self._back = None
        if place is None or place <= self._furthest:
            return
        self._furthest = place
        if self._unheard is not None:
            self.resumptions[self.resumptions.index(self._unheard)] = replace(self._unheard, new=now)
            self._unheard = None

    @contextmanager
    def operation(self, what: str, **value: Any) -> Iterator[dict[str, Any]]:
        """One request, Jepsen-style: invoke, then ok, fail (it surely had no effect) or info (it may have had one)."""
        number, more = next(self._operations), {"type": "ok"}
        if what != "answer":  # answers are posted beside the stream
            self._sent = time.time()
        self._line("invoke", what, {"op": number, **value})
        try:
            yield more
        except Unreached as broken:
            more |= {"type": "fail", "why": str(broken)}
            raise
        except BaseException as broken:
            more |= {"type": "info", "why": repr(broken)} if more["type"] == "ok" else {}
            raise
        finally:
            self._line(more.pop("type"), what, {"op": number, **more})

    def _line(self, kind: str, what: str, value: Any) -> None:
        if self.told.sink is not None:
            self.told.sink(kind, what, value)

    # --- the person --------------------------------------------------------------------------------

    def reply_to(self, method: str, params: Mapping[str, Any]) -> Message:
        """What is answered: always the same to the same question."""
        text = text_of(method, params)
        draw = random.Random(f"{self.script.name} {text}")
        if method == "sampling/createMessage":
            said = {"type": "text", "text": f"Dear guest, {draw.randrange(10**6)}"}
            return {"role": "assistant", "content": said, "model": "drill", "stopReason": "endTurn"}
        if text.startswith(_WHICH):
            self.told.saw("was_asked_which")
            return {"action": "accept", "content": {"choice": "join it" if "join it" in text else "go on"}}
        wanted = params["requestedSchema"]["properties"]
        drawn = {"nights": draw.randint(1, 30), "room": draw.choice(_ROOMS), "go_ahead": draw.random() < 0.8}
        return {"action": "accept", "content": {name: drawn[name] for name in wanted}}

    async def think(self) -> None:
        await asyncio.sleep(self.script.rng.uniform(0.1, 1.0) * self.script.thinks)

    # --- what is noted -------------------------------------------------------------------------------

    def acknowledged(self, text: str, reply: Mapping[str, Any]) -> None:
        """The server took this answer; from now on it must never ask that again."""
        if text not in self._acked and not text.startswith(_WHICH):
            self._acked[text] = next(self._order)
            self.told.saw("acknowledged", text, reply)

    @property
    def taken(self) -> frozenset[str]:
        """What was asked, for which this client knows that its answer was taken."""
        return frozenset(self._acked)

    def complain(self, what: str) -> None:
        self.told.saw("complained", what)

    def note_progress(self, message: Message) -> None:
        """Progress of one request must rise."""
        value = message["params"]["progress"]
        series = self.told.progress[-1]
        if series and value <= series[-1]:
            self.complain(f"progress fell from {series[-1]} to {value}")
        self.told.saw("progressed", value)

    def finish(self, message: Message) -> None:
        self.told.saw("finished", message.get("result"), message.get("error"))
