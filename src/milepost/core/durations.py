"""Durations as people write them: `20`, `"20"`, `"90s"`, `"5m"`, `"24h"`, `"7d"`, `"1h30m"`, always to seconds."""

from __future__ import annotations

import re

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhdw])")
_WHOLE = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhdw]))+\Z")


def seconds(value: object) -> float:
    """The duration in seconds. Raises ValueError that shows the accepted forms."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    text = value.strip().replace(" ", "") if isinstance(value, str) else ""
    if re.fullmatch(r"\d+(?:\.\d+)?", text):
        return float(text)
    if not _WHOLE.match(text):
        raise ValueError(f'{value!r} is not a duration: write seconds (20) or "90s", "5m", "24h", "7d", "1h30m"')
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))


def limit(value: object) -> float | None:
    """The seconds of a limit that may be left out: None stays None. Raises ValueError, as `seconds` does."""
    return None if value is None else seconds(value)


def spoken(duration: float) -> str:
    """The shortest exact form, for people: 86400 -> `1d`, 90 -> `90s`, 0.5 -> `0.5s`."""
    for unit in ("d", "h", "m"):
        if duration and duration % _UNITS[unit] == 0:
            return f"{duration / _UNITS[unit]:g}{unit}"
    return f"{duration:g}s"
