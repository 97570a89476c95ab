import dataclasses
import datetime as dt
import enum
import math
import pathlib
import uuid
from decimal import Decimal

import pytest
from pydantic import BaseModel, SecretStr

from milepost.core.digest import Arguments, canonical_json, digest, plain, question_digest
from milepost.core.errors import Unstorable


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Seat(BaseModel):
    row: int
    letter: str = "A"


@dataclasses.dataclass
class Pair:
    left: int
    right: Seat


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (1.5, 1.5),
        ((1, 2), [1, 2]),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (Seat(row=1), {"row": 1, "letter": "A"}),
        (Pair(1, Seat(row=2)), {"left": 1, "right": {"row": 2, "letter": "A"}}),
        ({3, 1, 2}, [1, 2, 3]),
        (b"\x01\xff", {"bytes": "01ff"}),
        (dt.date(2026, 11, 24), "2026-11-24"),
        (dt.time(9, 30), "09:30:00"),
        (dt.timedelta(minutes=1), 60.0),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Decimal("1.10"), "1.10"),
        (pathlib.PurePosixPath("/a"), "/a"),
        ({1: "x", Colour.RED: "y"}, {"1": "x", "red": "y"}),
    ],
)
def test_values_have_one_plain_form(value: object, expected: object) -> None:
    assert plain(value) == expected


def test_sets_of_anything_are_sorted_by_their_json() -> None:
    assert plain({("b", 1), ("a", 2)}) == [["a", 2], ["b", 1]]


@pytest.mark.parametrize("value", [math.nan, math.inf, object(), {object(): 1}, {True: 1}, lambda: 1, SecretStr("pin")])
def test_what_has_no_canonical_form_is_an_error_that_says_so(value: object) -> None:
    with pytest.raises(Unstorable):
        plain(value)


def test_hazard_a1_two_different_secrets_do_not_get_one_digest() -> None:
    with pytest.raises(Unstorable, match="secret"):
        plain({"card": SecretStr("4111")})


def test_digests_depend_on_the_salt_and_on_where_parts_end() -> None:
    assert digest(b"a", "xy", "z") != digest(b"a", "x", "yz")
    assert digest(b"a", "x") != digest(b"b", "x")
    assert digest(b"a", "\ud800")  # a lone surrogate from a client is no crash


def test_hazard_a1_meta_and_elicitation_id_do_not_change_a_question() -> None:
    first = {"message": "Pay?", "elicitationId": "1", "_meta": {"progressToken": 4}}
    assert question_digest(b"s", "elicitation/create", first) == question_digest(
        b"s", "elicitation/create", {"message": "Pay?", "elicitationId": "2"}
    )


def book(pnr: str, seat: str | None = None, *, fast: bool = False, tags: tuple[str, ...] = ()) -> None: ...


def test_hazard_a1_a_new_parameter_with_a_default_changes_no_key() -> None:
    arguments = Arguments(book)
    assert arguments.canonical(("X1",), {}) == '{"pnr":"X1"}'
    assert arguments.canonical(("X1", None), {"fast": False, "tags": ()}) == '{"pnr":"X1"}'


def test_the_way_of_passing_does_not_matter() -> None:
    arguments = Arguments(book)
    assert arguments.canonical(("X1", "12A"), {}) == arguments.canonical((), {"seat": "12A", "pnr": "X1"})


def test_a_value_of_another_type_is_not_the_default() -> None:
    assert Arguments(book).canonical(("X1",), {"fast": 0}) == '{"fast":0,"pnr":"X1"}'


def test_a_call_that_does_not_fit_is_a_type_error() -> None:
    with pytest.raises(TypeError):
        Arguments(book).canonical((), {})


def test_canonical_json_sorts_and_escapes() -> None:
    assert canonical_json({"b": 1, "a": "é"}) == '{"a":"\\u00e9","b":1}'
