"""What befalls whom: drawn from the seed, so that the same seed makes the same plan.

Each conversation is one call by one client to one server, with one fault that it is counted under and now and then a
second one. What a fault really hit is observed afterwards and never taken from the plan.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lab.striker import Kind, Place, Strike

HANDSHAKE, MODERN = "handshake", "modern"
ERAS = (HANDSHAKE, MODERN)
SERVERS = ("milepost", "sdk", "fastmcp")
STOCK = "a stock server"
BOOK, CHARGE, LOOK = "book", "charge", "look"

FOR_GOOD = "401 for good"
"""Also with the next token, so the call ends; against Milepost all are to finish."""
RESTART, DELETED, EXPIRED, KILLED = "server restarted", "session deleted", "session expired", "client killed"

_OPENING = ("initialize", "discover", "initialized")
_CALL = ("call", "round", "reread")
_ANSWER = ("answer", "round")
_ASKING = 3
"""Questions of `book`."""
_TOOLS = {"milepost": {BOOK: 80, LOOK: 12, CHARGE: 8}, STOCK: {BOOK: 55, LOOK: 12, CHARGE: 33}}
"""With stock servers it is mostly about effects that must not be repeated."""
_LAST_ROUND = 0.6
"""Share of strikes at modern rounds that are at the last one: with stock servers only that has effects."""
_SECOND = 0.25
"""Share of conversations that a second fault befalls."""
_AGAIN = ("reset", "half-open", "status", "ended")
"""Kinds of a second fault."""
_UNSAID = (500, 502, 503, 504)
"""Statuses that say nothing about the request."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One sort of fault, as the tables name it."""

    name: str
    kind: Kind
    place: Place
    status: int = 0
    retry_after: str = ""
    only: str = ""
    """The one era, server or sort of server that it is for."""
    lost: bool = False
    act: str = ""


def _network() -> list[Fault]:
    places: tuple[Place, ...] = ("before", "request", "done", "head", "between", "inside", "last", "thinking")
    return [
        *(Fault(f"reset, {place}", "reset", place) for place in places),
        *(Fault(f"half-open, {place}", "half-open", place) for place in places),
        *(Fault(f"truncated, {place}", "ended", place) for place in ("between", "inside")),
        Fault("cut, inside", "cut", "inside"),
        Fault("events twice", "twice", "along"),
        Fault("progress reordered", "swapped", "along"),
        Fault("request delivered twice", "doubled", "before", only="milepost"),
    ]


def _statuses() -> list[Fault]:
    plain = [Fault(f"{status}", "status", "before", status) for status in (429, *_UNSAID)]
    after = [
        Fault(f"{status}, Retry-After", "status", "before", status, "1")
        for status in (429, *_UNSAID)
    ]  # fmt: skip
    done = [Fault(f"{status} though done", "status", "done", status) for status in (502, 503, 504)]
    refused = [Fault("401", "status", "before", 401), Fault(FOR_GOOD, "status", "before", 401, only=STOCK)]
    return [*plain, *after, *done, *refused]


def _acts() -> list[Fault]:
    places: tuple[Place, ...] = ("before", "done", "between", "thinking")
    return [
        *(Fault(f"{RESTART}, {place}", "act", place, lost=place == "done", act=RESTART) for place in places),
        *(Fault(f"{KILLED}, {place}", "act", place, lost=place == "done", act=KILLED) for place in places),
        Fault(f"{KILLED}, sometime", "act", "thinking", act=KILLED),
        *(Fault(f"{DELETED}, {place}", "act", place, only=HANDSHAKE, act=DELETED) for place in ("before", "thinking")),
        Fault(f"{EXPIRED}, before", "act", "before", only=HANDSHAKE, act=EXPIRED),
    ]


FAULTS: Mapping[str, Fault] = {fault.name: fault for fault in (*_network(), *_statuses(), *_acts())}
SOMETIME = f"{KILLED}, sometime"


@dataclass(frozen=True, slots=True)
class Struck:
    """A fault and the exchange that it is for."""

    fault: str
    targets: Sequence[str]
    nth: int = 0
    event: int | None = None
    share: float = 0.0
    """Of a second, for `SOMETIME`."""

    def strike(self) -> Strike:
        """A new one, not yet hit."""
        fault = FAULTS[self.fault]
        made = Strike(fault.kind, fault.place, self.targets, self.nth, self.fault, fault.status, fault.retry_after)
        made.event, made.lost = self.event, fault.lost
        return made


@dataclass(frozen=True, slots=True)
class Planned:
    """One conversation. Its name is what the ledger and the report call it."""

    name: str
    server: str
    era: str
    tool: str
    strikes: Sequence[Struck]
    thinks: float
    """Seconds that the person thinks."""

    @property
    def fault(self) -> str:
        """The one that it is counted under."""
        return self.strikes[0].fault

    def suffers(self, act: str) -> bool:
        return any(FAULTS[one.fault].act == act for one in self.strikes)

    @property
    def must_finish(self) -> bool:
        """What Milepost promises: for workflows, and for tools that say that they may be called twice."""
        return self.server == "milepost" and self.tool != CHARGE


def plan(seed: int, server: str, conversations: int) -> list[Planned]:
    """The conversations with one server: each fault in each era as often as any other, in random order."""
    rng = random.Random(f"plan {seed} {server}")
    sort = server if server == "milepost" else STOCK
    cells = [(era, fault) for era in ERAS for fault in FAULTS.values() if fault.only in ("", era, sort)]
    drawn: list[tuple[str, Fault]] = []
    while len(drawn) < conversations:
        rng.shuffle(cells)
        drawn += cells
    return [_planned(rng, seed, server, number, *cell) for number, cell in enumerate(drawn[:conversations])]


def _planned(rng: random.Random, seed: int, server: str, number: int, era: str, fault: Fault) -> Planned:
    tools = _TOOLS["milepost" if server == "milepost" else STOCK]
    tool = BOOK if fault.place == "thinking" else rng.choices(list(tools), list(tools.values()))[0]
    if fault.kind == "doubled" and tool == CHARGE:
        tool = BOOK  # twice delivered is twice done, and no client's fault
    if fault.kind in ("twice", "swapped"):
        tool = rng.choice((BOOK, LOOK, CHARGE))
    strikes = [_struck(rng, era, tool, fault)] * (2 if fault.name == FOR_GOOD else 1)
    if rng.random() < _SECOND and fault.act != KILLED and fault.name != FOR_GOOD:
        second = rng.choice([one for one in FAULTS.values() if not one.only and one.kind in _AGAIN])
        if tool == BOOK or second.place != "thinking":
            strikes.append(_struck(rng, era, tool, second))
    return Planned(f"{server}-{era[0]}{number}-{seed}", server, era, tool, strikes, rng.uniform(0.01, 0.1))


def _struck(rng: random.Random, era: str, tool: str, fault: Fault) -> Struck:
    targets = _targets(rng, era, tool, fault)
    nth = rng.randrange(_ASKING) if targets in (_ANSWER, ("thinking",)) else 0
    if targets == _ANSWER and era == MODERN and rng.random() < _LAST_ROUND:
        nth = _ASKING - 1
    event = rng.choice((None, None, 0, 1)) if fault.place in ("between", "inside") else None
    return Struck(fault.name, targets, nth, event, rng.random())


def _targets(rng: random.Random, era: str, tool: str, fault: Fault) -> tuple[str, ...]:
    if fault.place == "thinking":
        return ("thinking",)
    if fault.kind in ("twice", "swapped") or (fault.place in ("between", "inside") and era == HANDSHAKE):
        return _CALL
    weights = [("opening", 1), ("call", 4), ("answer", 4 if tool == BOOK else 0)]
    if fault.act in (DELETED, EXPIRED) or fault.kind == "doubled":
        weights = weights[1:]
    drawn = rng.choices([name for name, _ in weights], [weight for _, weight in weights])[0]
    return {"opening": _OPENING, "call": _CALL, "answer": _ANSWER}[drawn]
