"""What was typed, or written in a file, as a field's value; or the reason why it is none, in words for its writer.

`parse` reads text as flags and files give it, `pick` as a person at a terminal does (choices by number), `check` looks
at a value that is JSON already.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

from milepost.calling.forms import Choice, Field, Kind, spelled

LONGEST: Final = 1_000_000
"""Characters of one answer: far beyond what anyone types, within what every server takes."""
_MENTIONED: Final = 12
"""Choices that a reason names, before it says how many more there are."""
_WHOLE: Final = re.compile(r"[+-]?\d{1,400}")
_DECIMAL: Final = re.compile(r"[+-]?(?:\d{1,400}(?:\.\d{0,400})?|\.\d{1,400})(?:[eE][+-]?\d{1,5})?")
_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")
_YES: Final = frozenset({"true", "yes", "y", "on", "1"})
_NO: Final = frozenset({"false", "no", "n", "off", "0"})


class Wrong(ValueError):
    """This is no value for that field; the text says what would be."""


# --- from text -----------------------------------------------------------------------------------


def parse(field: Field, text: str) -> Any:
    """The value that `text` gives. Raises Wrong."""
    if len(text) > LONGEST:
        raise Wrong(f"is longer than {LONGEST} characters")
    if field.nullable and text == "null" and field.kind is not Kind.TEXT:
        return None
    return check(field, _READERS[field.kind](field, text))


def pick(field: Field, text: str) -> Any:
    """As `parse`, but choices may also be given by their number in the list, from 1. Raises Wrong."""
    if field.kind is Kind.CHOICE:
        numbered = _numbered(field, text.strip())
        return numbered.value if numbered else parse(field, text.strip())
    if field.kind is Kind.CHOICES:
        return check(field, [_one(field, part) for part in _parts(text)])
    return parse(field, text)


def _numbered(field: Field, text: str) -> Choice | None:
    if text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= len(field.choices):
        return field.choices[int(text) - 1]
    return None


def _one(field: Field, text: str) -> Any:
    numbered = _numbered(field, text)
    return numbered.value if numbered else _chosen(field, text)


def _parts(text: str) -> list[str]:
    """`1, 3`, or `1 3` where these are all numbers: choices may have blanks in them."""
    parts = text.split(",") if "," in text or not text.replace(" ", "").isdigit() else text.split()
    return [part.strip() for part in parts if part.strip()]


def _text(field: Field, text: str) -> str:
    if field.format == "date-time" and len(text) > 10 and text[10] == " ":
        return text[:10] + "T" + text[11:]  # as people write it
    return text


def _integer(_field: Field, text: str) -> int:
    if not _WHOLE.fullmatch(text.strip()):
        raise Wrong("must be a whole number, such as 3")
    return int(text)


def _number(_field: Field, text: str) -> int | float:
    if _WHOLE.fullmatch(text.strip()):
        return int(text)
    if not _DECIMAL.fullmatch(text.strip()):
        raise Wrong("must be a number, such as 2.5")
    return float(text)


def _flag(_field: Field, text: str) -> bool:
    word = text.strip().lower()
    if word in _YES or word in _NO:
        return word in _YES
    raise Wrong("must be yes or no")


def _chosen(field: Field, text: str) -> Any:
    """By its value as it is spelled, else by its title, else by its title in any case."""
    by_value = {spelled(choice.value): choice for choice in reversed(field.choices)}
    by_title = {choice.title: choice for choice in reversed(field.choices)}
    by_any_case = {choice.title.casefold(): choice for choice in reversed(field.choices)}
    found = by_value.get(text) or by_title.get(text) or by_any_case.get(text.casefold())
    return _no_choice(field, text) if found is None else found.value


def _several(field: Field, text: str) -> Any:
    if text.lstrip().startswith("["):
        return _json(field, text)
    return [_chosen(field, part.strip()) for part in text.split(",") if part.strip()]


def _json(field: Field, text: str) -> Any:
    try:
        return strict_json(text)
    except ValueError as broken:
        if not field.types or "string" in field.types:
            return text
        raise Wrong(f"must be JSON ({_or(sorted(field.types))}): {broken}") from None


def strict_json(text: str) -> Any:
    """The JSON value in `text`. Raises ValueError, also for what only Python takes for JSON, and a nest too deep."""
    try:
        value = json.loads(text, parse_constant=_no_constant)
        json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeEncodeError:
        raise ValueError("it holds half a character, which is no text") from None
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_READERS: Final[Mapping[Kind, Callable[[Field, str], Any]]] = {
    Kind.TEXT: _text,
    Kind.INTEGER: _integer,
    Kind.NUMBER: _number,
    Kind.FLAG: _flag,
    Kind.CHOICE: _chosen,
    Kind.CHOICES: _several,
    Kind.JSON: _json,
}

# --- a JSON value --------------------------------------------------------------------------------


def check(field: Field, value: Any) -> Any:
    """`value`, if the field takes it. Raises Wrong."""
    if value is None and field.nullable:
        return None
    _CHECKS[field.kind](field, value)
    return value


def faults(fields: Sequence[Field], content: Mapping[str, Any], *, what: str = "field") -> list[str]:
    """Why `content` is no answer to the whole form, a sentence for each reason; empty if it is one."""
    known = {field.name: field for field in fields}
    found = [f"there is no {what} {name!r}{nearest(name, list(known))}" for name in content if name not in known]
    found += [f"{name!r} is needed" for name, field in known.items() if field.required and name not in content]
    for name, field in known.items():
        try:
            check(field, content.get(name)) if name in content else None
        except Wrong as reason:
            found.append(f"{name!r} {reason}")
    return found


def nearest(name: str, names: Sequence[str]) -> str:
    """`: did you mean 'x'?`, where there is something like it, or what there is."""
    if close := difflib.get_close_matches(name, names, n=1):
        return f": did you mean {close[0]!r}?"
    return f": there is {_or([repr(each) for each in names], 'and')}" if names else ""


def _check_text(field: Field, value: Any) -> None:
    if not isinstance(value, str):
        raise Wrong("must be a text")
    _count(field, len(value), "character")
    if expected := _FORMATS.get(field.format):
        test, words = expected
        if not test(value):
            raise Wrong(f"must be {words}")


def _check_integer(field: Field, value: Any) -> None:
    if isinstance(value, bool) or not (isinstance(value, int) or (isinstance(value, float) and value.is_integer())):
        raise Wrong("must be a whole number")
    _bounds(field, value)


def _check_number(field: Field, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise Wrong("must be a number")
    _bounds(field, value)


def _check_flag(_field: Field, value: Any) -> None:
    if not isinstance(value, bool):
        raise Wrong("must be true or false")


def _check_choice(field: Field, value: Any) -> None:
    if not any(_same(choice.value, value) for choice in field.choices):
        _no_choice(field, value)


def _check_choices(field: Field, value: Any) -> None:
    if not isinstance(value, list):
        raise Wrong("must be a list of choices")
    for n, each in enumerate(value):
        _check_choice(field, each)
        if any(_same(each, before) for before in value[:n]):
            raise Wrong(f"has {spelled(each)!r} twice")
    _count(field, len(value), "choice")


_JSON_TYPES: Final[Mapping[str, Callable[[Any], bool]]] = {
    "string": lambda v: isinstance(v, str),
    "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "number": lambda v: isinstance(v, int | float) and not isinstance(v, bool),
    "boolean": lambda v: isinstance(v, bool),
    "array": lambda v: isinstance(v, list),
    "object": lambda v: isinstance(v, dict),
    "null": lambda v: v is None,
}


def _check_json(field: Field, value: Any) -> None:
    """Only its type: the rest is the server's to judge."""
    if field.types and not any(_JSON_TYPES.get(name, lambda _v: True)(value) for name in field.types):
        raise Wrong(f"must be JSON of type {_or(sorted(field.types))}")


_CHECKS: Final[Mapping[Kind, Callable[[Field, Any], None]]] = {
    Kind.TEXT: _check_text,
    Kind.INTEGER: _check_integer,
    Kind.NUMBER: _check_number,
    Kind.FLAG: _check_flag,
    Kind.CHOICE: _check_choice,
    Kind.CHOICES: _check_choices,
    Kind.JSON: _check_json,
}


def _same(one: Any, other: Any) -> bool:
    """Equal as JSON: `true` is not 1."""
    return one == other and isinstance(one, bool) == isinstance(other, bool)


def _no_choice(field: Field, value: Any) -> NoReturn:
    known = [spelled(choice.value) for choice in field.choices]
    more = f", or {len(known) - _MENTIONED} more" if len(known) > _MENTIONED else ""
    names = ", ".join(known[:_MENTIONED]) + more if more else _or(known)
    raise Wrong(f"must be {'' if len(known) == 1 else 'one of '}{names}, not {spelled(value)[:80]!r}")


def _bounds(field: Field, value: float) -> None:
    if not math.isfinite(value):
        raise Wrong("must be a finite number")
    if field.least is not None and value < field.least:
        raise Wrong(f"must be at least {field.least}")
    if field.most is not None and value > field.most:
        raise Wrong(f"must be at most {field.most}")
    if field.above is not None and value <= field.above:
        raise Wrong(f"must be more than {field.above}")
    if field.below is not None and value >= field.below:
        raise Wrong(f"must be less than {field.below}")


def _count(field: Field, count: int, noun: str) -> None:
    if field.least is not None and count < field.least:
        raise Wrong(f"must have at least {_times(field.least, noun)}, not {count}")
    if field.most is not None and count > field.most:
        raise Wrong(f"must have at most {_times(field.most, noun)}, not {count}")


def _times(count: float, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _or(names: Sequence[str], word: str = "or") -> str:
    return f"{', '.join(names[:-1])} {word} {names[-1]}" if len(names) > 1 else "".join(names)


# --- formats -------------------------------------------------------------------------------------


def _is_email(text: str) -> bool:
    local, at, host = text.rpartition("@")
    return bool(local and at and host) and not any(each.isspace() or each == "@" for each in local + host)


def _is_uri(text: str) -> bool:
    if any(each.isspace() or not each.isprintable() for each in text):
        return False
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return bool(parts.scheme and (parts.netloc or parts.path))


def _is_date(text: str) -> bool:
    if not _DAY.fullmatch(text):
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _is_date_time(text: str) -> bool:
    if not _DAY.fullmatch(text[:10]) or text[10:11] not in ("T", "t"):
        return False
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


_FORMATS: Final[Mapping[str, tuple[Callable[[str], bool], str]]] = {
    "email": (_is_email, "an email address, such as name@example.org"),
    "uri": (_is_uri, "a whole web address, such as https://example.org/page"),
    "date": (_is_date, "a date as year-month-day, such as 2027-03-20"),
    "date-time": (_is_date_time, "a date, a time and its zone, such as 2027-03-20T14:30:00+01:00"),
}

# --- what a field wants, in words ----------------------------------------------------------------


def wanted(field: Field) -> str:
    """What may be given, in a few words; empty where anything may."""
    if field.kind is Kind.TEXT and field.format in _FORMATS:
        return _FORMATS[field.format][1]
    if field.kind is Kind.TEXT:
        return _range(field, "character")
    if field.kind in (Kind.INTEGER, Kind.NUMBER):
        return _numbers(field)
    if field.kind is Kind.FLAG:
        return "yes or no"
    if field.kind is Kind.CHOICES:
        return " ".join(filter(None, ["numbers with commas between,", _range(field, "choice")])).rstrip(",")
    if field.kind is Kind.CHOICE:
        return "a number"
    return f"JSON ({_or(sorted(field.types))})" if field.types else "a text, or JSON"


def _numbers(field: Field) -> str:
    noun = "a whole number" if field.kind is Kind.INTEGER else "a number"
    least = (
        f"more than {field.above}" if field.above is not None else f"{field.least}" if field.least is not None else ""
    )
    most = f"less than {field.below}" if field.below is not None else f"{field.most}" if field.most is not None else ""
    if least and most and field.above is None and field.below is None:
        return f"{noun}, {least} to {most}"
    parts = [
        least if field.above is not None or not least else f"at least {least}",
        most if field.below is not None or not most else f"at most {most}",
    ]
    return ", ".join(filter(None, [noun, *parts]))


def _range(field: Field, noun: str) -> str:
    least, most = field.least or None, field.most
    if least is not None and most is not None:
        return f"{least} to {_times(most, noun)}"
    if least is not None:
        return f"at least {_times(least, noun)}"
    return f"at most {_times(most, noun)}" if most is not None else ""
