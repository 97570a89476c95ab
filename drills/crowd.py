"""Many conversations over one balancer: so many at once, so many in all, for as long as the nemesis is at work."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from drills.cast import Slot
from drills.history import Told
from drills.over_http import Front, HandshakeTalk, ModernTalk
from drills.recorded import Recorder
from drills.talk import LIMIT, Resumption, Script, Talk

AT_ONCE = 16


class Crowd:
    """Half of its slots hold conversations of each era."""

    def __init__(self, front: Front, recorder: Recorder, seed: int, *, patience: float, at_once: int = AT_ONCE) -> None:
        self._front = front
        self._recorder = recorder
        self._patience = patience
        self.slots = [self._slot("handshake" if n % 2 else "modern", n, seed) for n in range(at_once)]
        self._holding: list[asyncio.Task[None]] = []

    def _slot(self, era: str, n: int, seed: int) -> Slot:
        kind = HandshakeTalk if era == "handshake" else ModernTalk
        return Slot(era, f"{era[0]}{n}", seed, lambda script: self._talk(kind, script))

    def _talk(self, kind: type[HandshakeTalk | ModernTalk], script: Script) -> Talk:
        script.thinks = random.Random(script.name).uniform(0.1, 0.6)
        talk = kind(script, self._front, patience=self._patience)
        self._recorder.conversation(talk.told)
        return talk

    def begin(self) -> None:
        self._holding = [asyncio.create_task(slot.hold()) for slot in self.slots]

    @property
    def told(self) -> Sequence[Told]:
        return [told for slot in self.slots for told in slot.done]

    @property
    def resumptions(self) -> Sequence[Resumption]:
        return [one for slot in self.slots for one in slot.resumptions]

    async def reach(self, conversations: int) -> None:
        """Wait until so many have been held. Raises whatever a client failed with."""
        while len(self.told) < conversations:
            for task in self._holding:
                if task.done():
                    task.result()
            await asyncio.sleep(0.1)

    async def end(self) -> None:
        """Let those that are go to their ends."""
        for slot in self.slots:
            slot.finish()
        await asyncio.wait_for(asyncio.gather(*self._holding), LIMIT + 60)

    async def aclose(self) -> None:
        """Idempotent."""
        for task in self._holding:
            task.cancel()
        await asyncio.gather(*self._holding, return_exceptions=True)
