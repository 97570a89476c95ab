"""A server's text, on its way to a terminal."""

from __future__ import annotations

import json

import pytest

from milepost.calling.printable import as_json, block, line, whole

FORGED = "\x1b[2J\x1b]0;owned\x07 \x9b31m \r\x08\x7f\u202egnp.exe\u2066\ufeff\u200b\ud800"


@pytest.mark.parametrize("show", [line, block, whole])
def test_what_a_terminal_might_obey_is_shown_instead(show: object) -> None:
    shown = show(FORGED)  # type: ignore[operator]
    assert all(each.isprintable() for each in shown)
    assert "\\x1b[2J\\x1b]0;owned\\x07" in shown
    assert "\\u202egnp.exe\\u2066" in shown


def test_words_of_every_script_and_joined_signs_are_left_alone() -> None:
    for text in ("São Tomé", "日本語", "עברית", "नमस्ते", "👩‍👩‍👧", "می‌خواهم", "1\u00a0000 €"):
        assert block(text) == text


def test_one_line_stays_one_line_and_a_block_keeps_its_lines() -> None:
    assert line("a\n\n b\tc\u2028d") == "a b c d"
    assert block("a\r\n\tb\nc") == "a\n    b\nc"
    assert whole("a\r\nb\n") == "a\nb\n"


def test_a_flood_is_cut_and_says_by_how_much() -> None:
    assert line("x" * 500, 10) == "xxxxxxxxxx… (490 more characters)"
    assert block("x" * 500, 10) == "xxxxxxxxxx… (490 more characters)"
    assert len(block("\n" * 1_000_000, 100)) < 200
    assert len(whole("x" * 50_000)) == 50_000


def test_printed_json_is_the_same_json_and_safe() -> None:
    value = {"a": [FORGED, "é", "\u2028", "\U000e0041"]}
    shown = as_json(value)
    assert json.loads(shown) == value
    assert all(each.isprintable() or each == "\n" for each in shown)
    assert "é" in shown
