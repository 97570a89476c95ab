"""How a step's result becomes JSON text and comes back.

A step returns the decoded value on its first run too, so that a replay can't differ from it: a tuple
under `list`, a subclass under its base, a dict with int keys look the same live and replayed.
"""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, PydanticSchemaGenerationError, PydanticUserError, SecretBytes, SecretStr, TypeAdapter

from milepost.core.errors import Unstorable


def check_name(what: str, name: str) -> None:
    """Raises Unstorable for a name that not every store can keep: one with a character 0 or half a character in it."""
    if "\0" in name or any("\ud800" <= character <= "\udfff" for character in name):
        raise Unstorable(f"the {what} {name!r} has a character in it that can't be stored: take another name")


class ResultCodec:
    """Encodes and decodes what one function returns, by its return annotation."""

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self._name = name
        self._adapter = _adapter_for(function, name)

    def encode(self, value: object) -> tuple[str, Any]:
        """JSON text, and the value that it reads back as, which is what the author gets.

        Raises Unstorable naming the step where the value can't be written and read back.
        """
        if self._adapter is None:
            text = self._encode_plain(value)
            return text, json.loads(text)
        try:
            text = self._adapter.dump_json(value, warnings=False).decode()
            return text, self._adapter.validate_json(text)
        except (ValueError, TypeError) as error:
            raise self._refuse(value, str(error).splitlines()[0]) from error

    def decode(self, text: str) -> Any:
        """The value. Raises Unstorable where the text doesn't fit the annotation (any more)."""
        if self._adapter is None:
            return json.loads(text)
        try:
            return self._adapter.validate_json(text)
        except ValueError as error:
            raise Unstorable(
                f"the recorded result of step {self._name!r} does not fit its return annotation: {error}"
            ) from error

    def _encode_plain(self, value: object) -> str:
        try:
            return json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise self._refuse(value, f"{error}; annotate what the step returns") from error

    def _refuse(self, value: object, why: str) -> Unstorable:
        return Unstorable(f"step {self._name!r} returned a {type(value).__name__} that can't be stored: {why}")


def _adapter_for(function: Callable[..., Any], name: str) -> TypeAdapter[Any] | None:
    """The adapter of the return annotation; None where there is none, so that only plain JSON will do."""
    annotation = _return_annotation(function)
    if annotation is inspect.Signature.empty or annotation is Any:
        return None
    if _holds_secret(annotation, set()):
        raise Unstorable(f"step {name!r} returns a secret: keep it inside the step and return a reference to it")
    try:
        return TypeAdapter(annotation)
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        raise Unstorable(f"step {name!r} returns {annotation!r}, which can't be stored as JSON") from error


def _return_annotation(function: Callable[..., Any]) -> Any:
    try:
        return typing.get_type_hints(function, include_extras=True).get("return", inspect.Signature.empty)
    except NameError as error:
        raise Unstorable(f"the return annotation of {function.__qualname__} can't be resolved: {error}") from error


def _holds_secret(annotation: Any, seen: set[int]) -> bool:
    if annotation in (SecretStr, SecretBytes):
        return True
    if id(annotation) in seen:
        return False
    seen.add(id(annotation))
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return any(_holds_secret(field.annotation, seen) for field in annotation.model_fields.values())
    return any(_holds_secret(part, seen) for part in typing.get_args(annotation))
