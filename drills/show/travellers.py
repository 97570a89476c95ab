"""The crowd: travellers of both eras who each change one flight, and hold on until they have their receipt."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from drills.history import Told
from drills.over_http import Front, HandshakeTalk, HttpTalk, ModernTalk
from drills.pipes import Message
from drills.talk import Resumption, Script
from milepost.demo.assistant import target

FIRST_DAY = date(2027, 3, 1)
DAYS = 60
"""The season of the assistant's made-up data; its flight MP105 goes on each of these days."""
FLIES = ("MP105", 95)
PATIENCE = 4.0
"""Seconds of silence (heartbeats come every second) after which a client comes back on another connection."""
_PASSENGER = 1
_LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ"


def pnrs() -> Iterator[str]:
    """Record locators of travellers that the season does not know yet."""
    for n in range(len(_LETTERS) ** 3):
        high, low = divmod(n, len(_LETTERS) ** 2)
        middle, last = divmod(low, len(_LETTERS))
        yield f"MP{_LETTERS[high]}{_LETTERS[middle]}{_LETTERS[last]}2"


def book(file: Path, travellers: Sequence[str]) -> None:
    """Make the booking system's data, and give each traveller an itinerary of one flight."""
    os.environ["TRAVEL_OPS_DB"] = str(file)
    spec = importlib.util.spec_from_file_location("travel_ops_data", target().with_name("data.py"))
    assert spec is not None
    assert spec.loader is not None
    data = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(data)
    with data.transaction() as db:
        for n, pnr in enumerate(travellers):
            day = (FIRST_DAY + timedelta(days=n % DAYS)).isoformat()
            db.execute("INSERT INTO itineraries VALUES (?, ?, 'FLEX', ?, 'ticketed')", (pnr, _PASSENGER, FLIES[1]))
            db.execute("INSERT INTO legs VALUES (?, 1, ?, ?, '9Z')", (pnr, FLIES[0], day))


class Traveller(HttpTalk):
    """What a traveller answers, in either era: always the same to the same question."""

    asked = 0
    """Questions that reached the client, those that came again because their answer was lost on the way included."""

    def reply_to(self, method: str, params: Mapping[str, Any]) -> Message:
        self.asked += 1
        if method != "elicitation/create" or str(params["message"]).startswith("An earlier '"):
            return super().reply_to(method, params)
        properties: Mapping[str, Any] = params["requestedSchema"]["properties"]
        return {"action": "accept", "content": {name: self._wish(name, one) for name, one in properties.items()}}

    def _wish(self, name: str, schema: Mapping[str, Any]) -> Any:
        if name == "day":
            return (FIRST_DAY + timedelta(days=random.Random(self.script.name).randrange(DAYS))).isoformat()
        return True if name == "go_ahead" else schema["oneOf"][0]["const"]


class HandshakeTraveller(Traveller, HandshakeTalk):
    """2025-11-25."""


class ModernTraveller(Traveller, ModernTalk):
    """2026-07-28."""


class Crowd:
    """So many travellers at once; when one has finished the next one comes, until `finish`."""

    def __init__(self, front: Front, travellers: Sequence[str], at_once: int) -> None:
        self.told: list[Told] = []
        self.resumptions: list[Resumption] = []
        self.talking: set[HttpTalk] = set()
        self._front = front
        self._next = iter(enumerate(travellers))
        self._finishing = False
        self._at_once = at_once
        self._tasks: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        self._tasks = [asyncio.create_task(self._one_after_the_other()) for _ in range(self._at_once)]

    async def finish(self, limit: float) -> None:
        """No new ones; those that are go to their ends. Raises TimeoutError."""
        self._finishing = True
        async with asyncio.timeout(limit):
            await asyncio.gather(*self._tasks)

    async def aclose(self) -> None:
        """Idempotent."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _one_after_the_other(self) -> None:
        while not self._finishing:
            n, pnr = next(self._next)
            kind = HandshakeTraveller if n % 2 else ModernTraveller
            talk = kind(Script(pnr, 0.0, 0.8, random.Random(pnr)), self._front, patience=PATIENCE)
            talk.tool, talk.arguments = "change_itinerary", {"pnr": pnr}
            self.talking.add(talk)
            try:
                self.told.append(await talk.run())
                self.resumptions += talk.resumptions
            finally:
                self.talking.discard(talk)

    @property
    def answered(self) -> int:
        return sum(len(told.acks) for told in [*self.told, *(talk.told for talk in self.talking)])
