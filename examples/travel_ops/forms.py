"""The questions to the user: each is bounded, and its answer checked.

A form's JSON schema can offer choices and limit numbers, but it can't limit a date. So dates are asked for with
`ask_day`, which looks at the answer again and asks once more, with the reason, when it is out of bounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date
from typing import Annotated, Any, Literal, TypeVar

from mcp.server.mcpserver import Context
from pydantic import BaseModel, Field, WithJsonSchema, create_model

from .domain import Flight, Leg, NotPossible, RefundReason

TRIES = 3
"""How often a date out of bounds is asked for again."""

CITIES = {"LIS": "Lisbon", "CPH": "Copenhagen", "VIE": "Vienna"}

Form = TypeVar("Form", bound=BaseModel)


class NoThanks(Exception):
    """The user declined, or closed the question: nothing further is done."""


class Day(BaseModel):
    day: date = Field(title="Day of travel", description="As year-month-day, such as 2027-03-20")


class Consent(BaseModel):
    go_ahead: bool = Field(title="Go ahead?")


class RefundWish(BaseModel):
    reason: RefundReason = Field(title="Why do you ask for a refund?")


class Party(BaseModel):
    """How long, and for how much."""

    nights: int = Field(ge=1, le=21, title="Nights", description="1 to 21")
    budget: int = Field(ge=100, le=5000, title="Budget in euros", description="For both flights, 100 to 5000")


class Approval(BaseModel):
    """A supervisor's decision on a refund."""

    decision: Literal["approve", "reject"] = Field(title="Decision")
    amount: int = Field(title="Amount in euros")
    approved_by: str = Field(min_length=2, max_length=60, title="Your name")


class LegChoice(BaseModel):
    leg: str


class FlightChoice(BaseModel):
    flight: str


class DestinationChoice(BaseModel):
    destination: str


def one_of(choices: Mapping[str, str]) -> Any:
    """A type that takes one of these values; the user sees their titles."""
    titled = [{"const": value, "title": title} for value, title in choices.items()]
    return Annotated[Literal[tuple(choices)], WithJsonSchema({"type": "string", "oneOf": titled})]


def choose_flight(flights: Iterable[Flight], price: Mapping[str, int]) -> type[FlightChoice]:
    """Asks for the number of one of these flights. `price` is in euros, by number."""
    titles = {f.number: f"{f.number}, {f.departs} to {f.arrives}, {price[f.number]} EUR" for f in flights}
    return create_model("FlightChoice", __base__=FlightChoice, flight=(one_of(titles), Field(title="Flight")))


def choose_leg(legs: Iterable[Leg]) -> type[LegChoice]:
    """Asks for the number of one of these legs, as text."""
    titles = {str(one.leg): f"{one.origin} to {one.destination} on {one.day} ({one.number})" for one in legs}
    return create_model("LegChoice", __base__=LegChoice, leg=(one_of(titles), Field(title="Which flight?")))


def choose_destination(destinations: Iterable[str]) -> type[DestinationChoice]:
    titles = {code: CITIES.get(code, code) for code in destinations}
    field = (one_of(titles), Field(title="Where to?"))
    return create_model("DestinationChoice", __base__=DestinationChoice, destination=field)


def approval_of(most: int) -> type[Approval]:
    """Asks a supervisor for a decision on a refund of at most `most` euros."""
    amount = (int, Field(ge=0, le=most, default=most, title="Amount in euros", description=f"0 to {most}"))
    return create_model("Approval", __base__=Approval, amount=amount)


async def ask(ctx: Context, message: str, form: type[Form]) -> Form:
    """The accepted answer. Raises NoThanks when the user declines or closes the question."""
    answer = await ctx.elicit(message, form)
    if answer.action != "accept":
        raise NoThanks
    return answer.data


async def ask_day(ctx: Context, message: str, first: date, last: date) -> date:
    """A day within `first` and `last`. Raises NoThanks, and NotPossible after too many days out of bounds."""
    question = f"{message} (between {first} and {last})"
    for _ in range(TRIES):
        answer = await ask(ctx, question, Day)
        if first <= answer.day <= last:
            return answer.day
        question = f"{answer.day} is not between {first} and {last}. {message}"
    raise NotPossible(f"None of {TRIES} answers was a day between {first} and {last}.")
