"""Workflows that many tests call."""

import asyncio

from engine.bench import Talk, Workbench
from milepost import step


def declare_book(bench: Workbench, **options: object) -> list[str]:
    """Declare `book`; returns the days that were booked."""
    booked: list[str] = []

    @step
    async def book_it(day: str) -> str:
        booked.append(day)
        return day

    @bench.tool(**options)
    async def book(talk: Talk) -> str:
        return str(await book_it((await talk.elicit("When?"))["day"]))

    return booked


def declare_two_steps(bench: Workbench) -> tuple[list[str], asyncio.Event]:
    """Declare `work`, of two steps, the first of which waits; returns (which steps ran, what the first waits for)."""
    ran: list[str] = []
    gate = asyncio.Event()

    @step
    async def one() -> str:
        ran.append("one")
        await gate.wait()
        return "1"

    @step
    async def two() -> str:
        ran.append("two")
        return "2"

    @bench.tool
    async def work(talk: Talk) -> str:
        return await one() + await two()

    return ran, gate
