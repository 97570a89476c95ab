from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from milepost.core.codec import ResultCodec
from milepost.core.errors import Unstorable


class Flight(BaseModel):
    number: str


class Charter(Flight):
    crew: int = 2


class Vault(BaseModel):
    key: SecretStr


class Node(BaseModel):
    children: list["Node"] = []


def flights() -> list[Flight]: ...
def by_row() -> dict[int, str]: ...
def anything(): ...  # type: ignore[no-untyped-def]
def explicit_any() -> Any: ...
def secret() -> Vault: ...
def tree() -> Node: ...
def generator() -> type[object] | ResultCodec: ...


def round_trip(function: Any, value: Any) -> Any:
    codec = ResultCodec(function, "f")
    text, stored = codec.encode(value)
    assert codec.decode(text) == stored
    return stored


def test_hazard_a3_a_subclass_comes_back_as_what_was_declared() -> None:
    value = round_trip(flights, [Charter(number="LH1")])
    assert type(value[0]) is Flight


def test_hazard_a3_keys_keep_their_declared_type() -> None:
    assert round_trip(by_row, {1: "a"}) == {1: "a"}


def test_without_an_annotation_plain_json_is_stored() -> None:
    assert round_trip(anything, {"a": [1, None]}) == {"a": [1, None]}
    assert round_trip(explicit_any, 3) == 3


@pytest.mark.parametrize("value", [object(), float("nan"), {1, 2}])
def test_without_an_annotation_anything_else_is_refused(value: object) -> None:
    with pytest.raises(Unstorable, match="annotate what the step returns"):
        ResultCodec(anything, "f").encode(value)


def test_a_value_that_does_not_fit_its_annotation_is_refused() -> None:
    with pytest.raises(Unstorable, match="'f' returned a int"):
        ResultCodec(flights, "f").encode(3)


def test_a_secret_result_is_refused_when_the_step_is_declared() -> None:
    with pytest.raises(Unstorable, match="secret"):
        ResultCodec(secret, "f")


def test_recursive_models_are_searched_once() -> None:
    assert round_trip(tree, Node(children=[Node()])) == Node(children=[Node()])


def test_an_annotation_that_can_not_be_stored_is_refused() -> None:
    with pytest.raises(Unstorable, match="can't be stored as JSON"):
        ResultCodec(generator, "f")


def test_an_annotation_that_can_not_be_resolved_is_refused() -> None:
    def later() -> "Missing": ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(Unstorable, match="can't be resolved"):
        ResultCodec(later, "f")


def test_a_record_that_no_longer_fits_says_so() -> None:
    with pytest.raises(Unstorable, match="does not fit"):
        ResultCodec(flights, "f").decode('{"x": 1}')
