"""What the tools of all three servers do and ask: the same questions, and effects that the outside ledger counts.

An effect is written down before the response goes out, so one that is done again is seen, whatever its caller is told.
"""

from __future__ import annotations

import json
import warnings
from typing import Any, Literal
from uuid import uuid4

from pydantic import BaseModel, Field

from drills import ledger

NOT_REPEATABLE = ("reserve", "pay", "charge")
"""Effects that must not be there twice. `look` may be: its tool says so."""

# What 2026-07-28 calls deprecated must work all the same: these are what hosts speak today.
warnings.filterwarnings("ignore", message="The (logging|sampling) capability is deprecated")


class Wish(BaseModel):
    nights: int = Field(ge=1, le=30)


class Choice(BaseModel):
    room: Literal["garden", "street", "attic"]


class Confirmation(BaseModel):
    go_ahead: bool


def how_many(conversation: str) -> str:
    return f"{conversation}: how many nights?"


def which_room(conversation: str, nights: int) -> str:
    return f"{conversation}: which room for {nights} nights?"


def go_on(conversation: str, room: str) -> str:
    return f"{conversation}: pay for the {room} room?"


def did(conversation: str, step: str, key: str = "", run: str = "") -> str:
    """One outside effect: noted whole. Returns its token, another one each time."""
    token = uuid4().hex
    ledger.mark(
        "begin",
        conversation=conversation,
        step=step,
        call=json.dumps([step, conversation]),
        key=key or token,
        run=run,
        token=token,
    )
    return token


def receipt(conversation: str, nights: int, room: str, go_ahead: bool, **tokens: str) -> dict[str, Any]:
    """Everything that was answered and done, so that a result tells whether anything was swapped or lost."""
    return {"conversation": conversation, "nights": nights, "room": room, "go_ahead": go_ahead, "tokens": tokens}
