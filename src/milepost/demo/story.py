"""The two acts: one conversation on each protocol era, and each time the server is killed twice.

In the handshake era (2025-11-25) the SDK's client comes back by itself: its stream has event ids, so it asks for the
rest. In the modern era (2026-07-28) a kill between two rounds is not even noticed; one within a request breaks
it, and the caller does what any caller does: it makes the same call again. Milepost knows that it is the same.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import httpx2
from mcp import Client, MCPError
from mcp.types import CallToolResult, TextContent

from milepost.core.errors import MilepostError
from milepost.demo import ledger
from milepost.demo.assistant import Assistant, DemoFailed
from milepost.demo.proof import Check, RunProof, judge, prove, stored_runs
from milepost.demo.telling import Telling
from milepost.demo.traveller import Traveller

ACT_LIMIT = 90.0
"""Seconds; an act takes some fifteen."""

CALLS = 3
"""How often a broken call is made again."""

PROMISE = (
    "A tool asks its user several things, holds a seat, books a flight and sends a letter. "
    "Its server is killed in the middle of that, twice on each protocol era."
)

TOLD = {
    "hold_seat": "the airline holds a seat",
    "rebook": "the airline has booked the new flight, and taken the money",
    "send_letter": "the letter is sent",
    "release_seat": "the held seat is given back",
}


@dataclass(frozen=True, slots=True)
class Act:
    """One conversation."""

    title: str
    text: str
    mode: Literal["legacy", "2026-07-28"]
    pnr: str
    wishes: dict[str, Any]
    killed_at: str
    """The form field whose question is open when the server is killed."""
    killed_in: str
    """The step that is running when it is killed again."""


ACTS = (
    Act(
        title="Act 1: a client of 2025-11-25, over a session",
        text="One call of change_itinerary by the official SDK's client, which knows nothing of the kills.",
        mode="legacy",
        pnr="QK7P2M",
        wishes={"leg": "1", "day": "2027-03-23", "go_ahead": True},
        killed_at="flight",
        killed_in="rebook",
    ),
    Act(
        title="Act 2: a client of 2026-07-28, without sessions",
        text="The same tool, unchanged. Each answer is a new request that carries a sealed requestState.",
        mode="2026-07-28",
        pnr="H8V5LC",
        wishes={"day": "2027-04-20", "go_ahead": True},
        killed_at="go_ahead",
        killed_in="rebook",
    ),
)


class Scene:
    """One act while it is played."""

    def __init__(self, act: Act, assistant: Assistant, telling: Telling) -> None:
        self.act = act
        self.kills = 0
        self.traveller = Traveller(telling, act.wishes, self._before_answering)
        self._assistant = assistant
        self._telling = telling
        self._seen: set[int] = set()
        self._restarts: list[asyncio.Task[None]] = []
        self._up = asyncio.Event()
        self._up.set()

    async def play(self) -> CallToolResult:
        """The call's result, after whatever happened on the way. Raises DemoFailed."""
        self._telling.act(self.act.title, self.act.text)
        witness = asyncio.create_task(self._watch_effects())
        saboteur = asyncio.create_task(self._kill_in_step())
        try:
            async with asyncio.timeout(ACT_LIMIT):
                result = await self._call_until_answered()
                await saboteur
        except TimeoutError:
            raise DemoFailed(f"no result after {ACT_LIMIT:g} s. The server's log ends with:\n"
                             f"{self._assistant.last_words()}") from None  # fmt: skip
        finally:
            await _ended(saboteur)
            await asyncio.wait_for(asyncio.gather(*self._restarts), ACT_LIMIT)
            self._tell_effects()
            await _ended(witness)
        self._telling.result(_text(result))
        return result

    async def _call_until_answered(self) -> CallToolResult:
        for nth in range(1, CALLS + 1):
            await self._up.wait()
            try:
                return await self._call()
            except* (MCPError, httpx2.HTTPError, ConnectionError) as broken:
                if nth == CALLS:
                    raise DemoFailed(f"the call broke {CALLS} times: {_first(broken)}") from broken
                self._telling.recovery(f"the call broke ({_first(broken)}); the client makes the same call again")
        raise DemoFailed("the call was never made")

    async def _call(self) -> CallToolResult:
        client = Client(
            self._assistant.url,
            mode=self.act.mode,
            elicitation_callback=self.traveller.elicited,
            sampling_callback=self.traveller.sampled,
        )
        async with client:
            return await client.call_tool("change_itinerary", {"pnr": self.act.pnr}, progress_callback=self._progress)

    async def _progress(self, progress: float, total: float | None, message: str | None) -> None:
        if message and not message.endswith(": done"):
            self._telling.stage(message)

    async def _before_answering(self, field: str) -> None:
        if field == self.act.killed_at and not self.kills:
            await self._kill("while a question is open")

    async def _kill_in_step(self) -> None:
        """Kill the server when the outside world has done what a step asks for, but the step has not heard of it."""
        await ledger.happens(self._assistant.data, self.act.pnr, self.act.killed_in, ACT_LIMIT)
        self._tell_effects()
        await self._kill(f"while the step {self.act.killed_in} runs: done outside, not yet recorded")

    async def _kill(self, when: str) -> None:
        """Kill and start anew, to the end, even if who asked for it gives up meanwhile."""
        self._up.clear()
        self.kills += 1
        self._restarts.append(asyncio.create_task(self._restart(when)))
        await asyncio.shield(self._restarts[-1])

    async def _restart(self, when: str) -> None:
        self._telling.kill(f"kill -9 {self._assistant.pid}, {when}")
        await self._assistant.kill()
        took = await self._assistant.start()
        self._telling.recovery(
            f"a new server is up after {took:.1f} s (process {self._assistant.pid}); the run goes on"
        )
        self._up.set()

    async def _watch_effects(self) -> None:
        while True:
            self._tell_effects()
            await asyncio.sleep(ledger.LOOK_EVERY)

    def _tell_effects(self) -> None:
        for effect in ledger.effects(self._assistant.data, self.act.pnr):
            if effect.n not in self._seen:
                self._seen.add(effect.n)
                self._telling.effect(f"{effect.kind}: {TOLD.get(effect.kind, 'done')}")


async def tell(folder: Path, telling: Telling, acts: Sequence[Act] = ACTS) -> bool:
    """Play the acts and prove what they claim. False: something does not hold. Raises DemoFailed."""
    assistant = Assistant(folder)
    try:
        took = await assistant.start()
        telling.opening(PROMISE, _facts(assistant, took))
        scenes = []
        for act in acts:
            scenes.append(Scene(act, assistant, telling))
            await scenes[-1].play()
    finally:
        await assistant.stop()
    return await _proven(assistant, scenes, telling)


def _facts(assistant: Assistant, took: float) -> list[tuple[str, str]]:
    return [
        ("server", f"milepost serve travel_ops/server.py:mcp, at {assistant.url}, up after {took:.1f} s"),
        ("client", "the official Python SDK's mcp.Client, unchanged"),
        ("data", str(assistant.folder)),
    ]


async def _proven(assistant: Assistant, scenes: Sequence[Scene], telling: Telling) -> bool:
    runs = await stored_runs(assistant.store)
    proofs: list[RunProof] = []
    for run in runs:
        pnr = str(run.run.call.arguments["pnr"])
        proofs.append(prove(run, ledger.effects(assistant.data, pnr)))
        telling.proof(f"Read back from the store: change_itinerary({pnr!r})", proofs[-1])
    checks: list[Check] = judge(
        proofs,
        wanted=len(scenes),
        kills=sum(scene.kills for scene in scenes),
        asked_again=[text for scene in scenes for text in scene.traveller.asked_again],
    )
    telling.verdict(checks)
    return all(check.holds for check in checks)


def main() -> int:
    """Tell the story on the terminal. 0: everything holds."""
    telling = Telling()
    with tempfile.TemporaryDirectory(prefix="milepost-demo-") as folder:
        try:
            holds = asyncio.run(tell(Path(folder), telling))
        except (DemoFailed, MilepostError) as failure:
            telling.failure(str(failure))
            return 1
        except KeyboardInterrupt:
            sys.stderr.write("stopped\n")
            return 130
    telling.closing("Four kills, two eras, nothing lost, nothing done twice." if holds else "The proof failed.")
    return 0 if holds else 1


async def _ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _first(group: BaseException) -> str:
    """The text of the first exception in a group."""
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return str(group) or type(group).__name__


def _text(result: CallToolResult) -> str:
    """What the traveller gets, in a line; the result's own text where it is something else."""
    booking = (result.structured_content or {}).get("booking")
    if not booking:
        return "\n".join(block.text for block in result.content if isinstance(block, TextContent))
    flight = "{number} on {day}, seat {seat}, {paid} euros paid".format(**booking)
    return f"{booking['pnr']} is changed: {flight}"
