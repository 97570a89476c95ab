"""One conversation of the drill: its proxy, its client (a task or a process to be killed), its person, its faults."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import time
from collections.abc import Awaitable
from multiprocessing import connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from drills.client import child
from drills.client.classes import named
from drills.client.person import Person
from drills.client.plan import DELETED, EXPIRED, FAULTS, KILLED, RESTART, SOMETIME, Planned
from drills.client.served import Lane
from drills.client.talking import Outcome, call_once, tool_of, with_ours, with_stock
from drills.client.told import NO_END, Told
from lab.striker import Strike, Striker

OURS, STOCK = "milepost", "stock"
LIMIT = 200.0
"""Seconds that a conversation may take, faults and all; past it, it has no end."""
_LIVES = 4


def processes() -> ForkServerContext:
    """Where clients are started that will be killed: each is a process, forked off one that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["__main__", "drills.client.child"])
    first = context.Process(target=child.nothing)
    first.start()
    first.join()
    return context


class Conversation:
    """Hold it once."""

    def __init__(self, planned: Planned, lane: Lane, client: str, folder: Path) -> None:
        self._planned = planned
        self._lane = lane
        self._client = client
        self._folder = folder
        self._name = planned.name + ("" if client == OURS else "-stock")
        self._strikes = [struck.strike() for struck in planned.strikes]
        self._shown: list[tuple[str, str]] = []
        self._life: BaseProcess | None = None
        self._kills = 0
        self.striker = Striker(lane.process.port, self._strikes, named, self._act)

    async def hold(self, context: ForkServerContext) -> Told:
        """To its end, or to the limit."""
        p, began = self._planned, time.monotonic()
        told = Told(self._name, p.server, p.era, p.tool, self._client, p.fault, must_finish=p.must_finish)
        async with self._lane.behind(self.striker):
            try:
                async with asyncio.timeout(LIMIT):
                    told.outcome, told.why, told.result = await self._talk(context)
            except TimeoutError:
                told.outcome, told.why = NO_END, f"no end within {LIMIT:g} s"
            finally:
                self._kill_nowait()
        told.hits = [strike.name for strike in self._strikes if strike.hit]
        told.shown, told.kills, told.seconds = tuple(self._shown), self._kills, time.monotonic() - began
        return told

    def _talk(self, context: ForkServerContext) -> Awaitable[Outcome]:
        p, url = self._planned, f"http://127.0.0.1:{self.striker.port}/mcp"
        tool = tool_of(p.server, p.era, p.tool)
        person = Person(p.thinks, self._note, self._on_thinking)
        if self._client == STOCK:
            return with_stock(url, p.era, person, tool, self._name)
        if p.suffers(KILLED):
            return self._lives(context, {"url": url, "era": p.era, "tool": tool, "thinks": p.thinks})
        return with_ours(url, p.era, person, None, lambda client: call_once(client, tool, self._name))

    def _note(self, kind: str, text: str = "") -> None:
        self._shown.append((kind, text))

    # --- faults ----------------------------------------------------------------------------------------

    async def _on_thinking(self, number: int) -> None:
        for strike in self._strikes:
            if strike.place == "thinking" and strike.nth == number and not strike.hit:
                await self.striker.strike_now(strike)

    async def _act(self, strike: Strike) -> None:
        act, session = FAULTS[strike.name].act, self.striker.session
        strike.hit = act in (RESTART, KILLED) or session is not None
        if act == RESTART:
            await self._lane.restart()
        elif act == KILLED:
            self._kill_nowait()
        elif act == DELETED and session is not None:
            await self._lane.delete(session)
        elif act == EXPIRED and session is not None:
            self.striker.expired.add(session)

    def _kill_nowait(self) -> None:
        """SIGKILL, at this very moment. Idempotent."""
        life, self._life = self._life, None
        if life is not None and life.pid is not None:
            os.kill(life.pid, signal.SIGKILL)

    # --- a client that is killed -------------------------------------------------------------------------

    async def _lives(self, context: ForkServerContext, spec: dict[str, Any]) -> Outcome:
        diary = self._folder / f"{self._name}.jsonl"
        spec |= {"name": self._name, "diary": str(diary), "journal": str(self._folder / f"{self._name}.db")}
        try:
            for number in range(_LIVES):
                spec["dies_thinking"] = self._dies_thinking() if number == 0 else -1
                if not await self._one_life(context, spec, first=number == 0):
                    break
                child.append(diary, {"kind": "killed"})
                self._kills += 1
        finally:
            lines = child.lines_of(diary)
            self._shown += [(line["kind"], line.get("text", "")) for line in lines]
        ended = next((line for line in lines if line["kind"] == "ended"), None)
        if ended is None:
            return "bug", f"the client's process ended without a word; see {diary}", None
        return ended["outcome"], ended["why"], ended["result"]

    async def _one_life(self, context: ForkServerContext, spec: dict[str, Any], *, first: bool) -> bool:
        """True: it was killed."""
        life = context.Process(target=child.main, args=(spec,), daemon=True)
        life.start()  # not in a thread: it looks after all others too, and who reads one's end first has it
        self._life = life
        sometime = self._sometime() if first else None
        timer = None if sometime is None else asyncio.ensure_future(self._kill_after(*sometime))
        await asyncio.to_thread(connection.wait, [life.sentinel])
        self._life = None
        life.join()
        if timer is not None:
            timer.cancel()
        if life.exitcode == -signal.SIGKILL and first:
            for strike in self._strikes:
                strike.hit |= strike.place == "thinking"
        return life.exitcode == -signal.SIGKILL

    def _dies_thinking(self) -> int:
        return next((s.nth for s in self._strikes if s.place == "thinking" and s.name != SOMETIME), -1)

    def _sometime(self) -> tuple[Strike, float] | None:
        for strike, struck in zip(self._strikes, self._planned.strikes, strict=True):
            if strike.name == SOMETIME:
                return strike, struck.share
        return None

    async def _kill_after(self, strike: Strike, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self._kill_nowait()
