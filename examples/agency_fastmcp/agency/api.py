"""What the agency's server calls: a list of tours, and a booking desk that writes each hold to a file."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

TOURS = {
    "Lisbon": {"tram 28 and fado": 60, "Sintra by train": 85},
    "Vienna": {"coffee houses": 45, "a night at the opera": 140},
    "Copenhagen": {"harbour by boat": 50, "Louisiana museum": 75},
}


def desk() -> Path:
    """One line per hold: `AGENCY_DESK`, else `desk.jsonl` in the current directory."""
    return Path(os.environ.get("AGENCY_DESK", "desk.jsonl"))


async def hold_place(tour: str, people: int) -> int:
    """Hold places on a tour; returns the number of the hold. Called twice, it holds twice."""
    return await asyncio.to_thread(_write, {"tour": tour, "people": people})


def _write(hold: dict[str, object]) -> int:
    with desk().open("a") as file:
        file.write(json.dumps(hold) + "\n")
    return len(desk().read_text().splitlines())
