"""Canonical JSON of what an author passed, and the salted digests that journal keys are made of.

Two calls are "the same" when what was passed is the same, so the encoding is by value: sets are
sorted, models and dataclasses are their fields, arguments equal to the parameter's default are left
out (a release that adds a parameter with a default changes no key). What has no canonical form, and
secrets, are errors here, before anything runs: a repr() would differ for each object, and two
different secrets would look alike.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import hashlib
import inspect
import json
import math
import pathlib
import uuid
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, SecretBytes, SecretStr

from milepost.core.errors import Unstorable

_PLAIN = inspect.Parameter.POSITIONAL_OR_KEYWORD
_TEXTUAL = (dt.date, dt.time, dt.timedelta, uuid.UUID, Decimal, pathlib.PurePath)
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode
"""Made once: `json.dumps` with options of its own makes an encoder at each call, at four times the cost."""
_QUESTION_NOISE = frozenset({"_meta", "elicitationId"})
"""Parts of a question's params that don't say what is asked (HAZARDS A1: they change per attempt)."""


def plain(value: object) -> Any:
    """`value` as plain JSON data. Raises Unstorable for what has no canonical form, and for secrets."""
    if value is None or isinstance(value, str | bool | int):
        return value.value if isinstance(value, enum.Enum) else value
    if isinstance(value, float):
        return _finite(value)
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {_text_key(key): plain(item) for key, item in value.items()}
    return _plain_object(value)


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise Unstorable(f"{value!r} is not JSON: pass None or a string instead")
    return value


def _text_key(key: object) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, bool) or not isinstance(key, int | float | dt.date | uuid.UUID | enum.Enum):
        raise Unstorable(f"a mapping key of type {type(key).__name__} has no canonical form; use strings")
    return str(plain(key))


def _plain_object(value: object) -> Any:
    if isinstance(value, SecretStr | SecretBytes):
        raise Unstorable("a secret can't be a step's argument or result: fetch it inside the step instead")
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if isinstance(value, BaseModel):
        return {name: plain(item) for name, item in value}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, set | frozenset):
        return sorted((plain(item) for item in value), key=canonical_json)
    if isinstance(value, bytes | bytearray):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if isinstance(value, _TEXTUAL):
        return value.isoformat() if isinstance(value, dt.date | dt.time) else str(value)
    raise Unstorable(
        f"a value of type {type(value).__name__} has no canonical form, so the call can't be recognised after a "
        "restart: pass plain data (str, int, dates, dataclasses, pydantic models, lists, dicts)"
    )


def canonical_json(value: object) -> str:
    """The one JSON text of a plain value: sorted keys, no spaces, ASCII."""
    return _encode(value)


def digest(salt: bytes, *parts: str) -> str:
    """128-bit keyed digest of `parts` as 32 hex digits; `salt` is the run's own, so keys of two runs never meet."""
    raw = [part.encode("utf-8", "surrogatepass") for part in parts]
    framed = b"".join([len(part).to_bytes(8, "big") + part for part in raw])
    return hashlib.blake2b(framed, key=salt[:64], digest_size=16).hexdigest()


def question_digest(salt: bytes, method: str, params: Mapping[str, Any]) -> str:
    """Digest of what a question asks, without `_meta` and `elicitationId`."""
    asked = {name: value for name, value in params.items() if name not in _QUESTION_NOISE}
    return digest(salt, method, canonical_json(asked))


class Arguments:
    """Turns the arguments of one function's calls into canonical JSON, by parameter name."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._signature = inspect.signature(function)
        kinds = {parameter.kind for parameter in self._signature.parameters.values()}
        self._names = tuple(self._signature.parameters) if kinds <= {_PLAIN} else None
        self._defaults = {
            name: parameter.default
            for name, parameter in self._signature.parameters.items()
            if parameter.default is not inspect.Parameter.empty
        }

    def canonical(self, args: Iterable[Any], kwargs: Mapping[str, Any]) -> str:
        """JSON of what was passed. Raises TypeError for a call that doesn't fit, Unstorable for what has no form."""
        passed = self._by_name(tuple(args), kwargs)
        kept = {name: plain(value) for name, value in passed.items() if not self._is_default(name, value)}
        return canonical_json(kept)

    def _by_name(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
        """What was passed, by parameter. The common call, all by position, is spared `bind`, which takes 5 µs."""
        if not kwargs and self._names is not None and len(args) == len(self._names):
            return dict(zip(self._names, args, strict=True))
        return self._signature.bind(*args, **kwargs).arguments

    def _is_default(self, name: str, value: object) -> bool:
        if name not in self._defaults:
            return False
        default = self._defaults[name]
        return value is default or (type(value) is type(default) and bool(value == default))
