"""Who talks while the nemesis kills: a few slots, each holding one conversation after the other."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

from drills.history import Told
from drills.over_http import Doors, HandshakeTalk, ModernTalk
from drills.over_stdio import PipeHandshakeTalk, PipeModernTalk
from drills.servers import Child, Place
from drills.talk import AnswerSent, Resumption, Script, Talk, nobody

Make = Callable[[Script], Talk]

MIX = ("handshake", "modern", "handshake", "modern", "handshake", "modern", "stdio handshake", "stdio modern")
"""Eight conversations at once."""


class Slot:
    """Holds conversations of one kind until told to finish."""

    def __init__(self, era: str, name: str, seed: int, make: Make, child: Child | None = None) -> None:
        self.era = era
        self.name = name
        self.child = child
        self.talk: Talk | None = None
        self.done: list[Told] = []
        self.resumptions: list[Resumption] = []
        self.on_answer_sent: AnswerSent = nobody
        self.gate = asyncio.Event()
        self.gate.set()
        self._make = make
        self._rng = random.Random(f"slot {name} {seed}")
        self._finishing = False

    @property
    def quiet(self) -> bool:
        """No conversation is held here right now."""
        return self.talk is None

    def finish(self) -> None:
        """Begin no more conversations."""
        self._finishing = True
        self.gate.set()

    async def hold(self) -> None:
        """One conversation after the other."""
        while not self._finishing:
            await self.gate.wait()
            if not self._finishing:
                await self._one()

    async def _one(self) -> None:
        script = Script(
            name=f"{self.name}-{len(self.done) + 1}",
            pace=round(self._rng.uniform(0.1, 0.5), 3),
            thinks=self._rng.uniform(0.2, 0.8),
            rng=random.Random(self._rng.random()),
        )
        self.talk = self._make(script)
        self.talk.on_answer_sent = self.on_answer_sent
        try:
            self.done.append(await self.talk.run())
            self.resumptions += self.talk.resumptions
        finally:
            self.talk = None


def cast(place: Place, doors: Doors, seed: int, mix: Sequence[str] = MIX) -> list[Slot]:
    """The slots of a drill. A slot's name says its era, and begins the names of its conversations."""
    slots = []
    for number, era in enumerate(mix):
        name = f"{''.join(word[0] for word in era.split())}{number}"
        if era == "handshake":
            slots.append(Slot(era, name, seed, lambda script: HandshakeTalk(script, doors)))
        elif era == "modern":
            slots.append(Slot(era, name, seed, lambda script: ModernTalk(script, doors)))
        else:
            child = Child(place, name)
            slots.append(Slot(era, name, seed, _piped(era, child), child))
    return slots


def _piped(era: str, child: Child) -> Make:
    kind = PipeHandshakeTalk if era == "stdio handshake" else PipeModernTalk
    return lambda script: kind(script, child)
