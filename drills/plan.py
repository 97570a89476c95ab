"""What will be killed, when: drawn from the seed, so that the same seed makes the same plan.

What a kill then really hits depends on the machine; it is observed afterwards and never taken from the plan.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

ERAS = ("handshake", "modern", "stdio handshake", "stdio modern")
POINTS = ("step", "boundary", "answer", "question", "any", "idle", "start")

_ERA_WEIGHTS = (35, 35, 15, 15)
_POINT_WEIGHTS = (24, 18, 22, 16, 10, 5, 5)
_BLOCK = 4
"""Kills in a row with the same number of servers."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One kill."""

    n: int
    era: str
    point: str
    """step: while one runs; boundary: about when one ends; answer: microseconds after one was sent; question: while
    one is open; any: whenever; idle: while nobody talks to the server."""
    share: float
    """Where within that point, 0 to 1."""
    pause: float
    """Seconds of peace before it."""
    servers: int
    """How many HTTP servers work on the store then."""


def plan(seed: int, kills: int) -> Sequence[Planned]:
    """The kills, in order. Every era and point comes up, also in a short plan."""
    rng = random.Random(f"plan {seed}")
    eras = _spread(rng, ERAS, _ERA_WEIGHTS, kills)
    birth = ["birth"] if kills > len(POINTS) else []
    points = birth + _spread(rng, POINTS, _POINT_WEIGHTS, kills - len(birth))
    return [
        Planned(n, era, point, rng.random(), rng.uniform(0.1, 0.9), 2 if (n // _BLOCK) % 3 == 2 else 1)
        for n, (era, point) in enumerate(zip(eras, points, strict=True))
    ]


def _spread(rng: random.Random, names: Sequence[str], weights: Sequence[int], wanted: int) -> list[str]:
    """Each name by its weight, but at least once as far as `wanted` allows, in random order."""
    drawn = list(names)[:wanted]
    drawn += rng.choices(names, weights=weights, k=wanted - len(drawn))
    rng.shuffle(drawn)
    return drawn
