"""Workflows that many tests call."""

import asyncio
from typing import Any

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


def two_steps() -> tuple[Any, Any, list[str], asyncio.Event]:
    """Two steps, the first of which waits; returns them, which of them ran, and what the first waits for."""
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

    return one, two, ran, gate


def declare_two_steps(bench: Workbench) -> tuple[list[str], asyncio.Event]:
    """Declare `work`, of `two_steps`; returns (which steps ran, what the first waits for)."""
    one, two, ran, gate = two_steps()

    @bench.tool
    async def work(talk: Talk) -> str:
        return str(await one() + await two())

    return ran, gate
