"""What may be claimed from counts."""

from __future__ import annotations

import pytest

from drills.bounds import claim, upper


@pytest.mark.parametrize("tries", [1, 59, 300])
def test_nothing_of_n_is_the_closed_form(tries: int) -> None:
    assert upper(0, tries) == pytest.approx(1 - 0.05 ** (1 / tries))


def test_fifty_nine_without_a_failure_are_needed_for_five_percent() -> None:
    assert upper(0, 58) > 0.05 > upper(0, 59)


@pytest.mark.parametrize(("failures", "tries", "expected"), [(1, 10, 0.3942), (3, 20, 0.3437), (2, 100, 0.0616)])
def test_some_of_n_are_the_published_limits(failures: int, tries: int, expected: float) -> None:
    assert upper(failures, tries) == pytest.approx(expected, abs=2e-4)


def test_no_tries_and_nothing_but_failures_rule_out_nothing() -> None:
    assert (upper(0, 0), upper(7, 7)) == (1.0, 1.0)


def test_a_claim_names_all_three_numbers() -> None:
    assert claim(0, 59) == "0 of 59 (< 5 %)"
