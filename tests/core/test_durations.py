"""Durations: the one grammar of settings, flags and the author's code."""

from __future__ import annotations

import pytest

from milepost.core import durations


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (20, 20),
        ("20", 20),
        ("1.5", 1.5),
        ("90s", 90),
        ("5m", 300),
        ("24h", 86400),
        ("7d", 604800),
        ("1h30m", 5400),
        ("250ms", 0.25),
        ("2w", 1209600),
    ],
)
def test_durations_are_read_as_people_write_them(text: object, expected: float) -> None:
    assert durations.seconds(text) == expected


@pytest.mark.parametrize("text", ["", "soon", "5x", "-5s", True, None])
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        durations.seconds(text)


@pytest.mark.parametrize(("number", "text"), [(86400, "1d"), (90, "90s"), (300, "5m"), (0.5, "0.5s"), (0, "0s")])
def test_durations_are_shown_short(number: float, text: str) -> None:
    assert durations.spoken(number) == text


def test_a_limit_may_be_left_out() -> None:
    assert durations.limit(None) is None
    assert durations.limit("1h30m") == 5400
