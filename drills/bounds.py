"""What a count of failures lets one claim: the upper end of the exact (Clopper-Pearson) 95 % interval."""

from __future__ import annotations

from math import comb

CONFIDENCE = 0.95


def upper(failures: int, tries: int, confidence: float = CONFIDENCE) -> float:
    """The largest true share of failures that such a count does not rule out: for 0 of n it is 1 - 0.05 ** (1/n)."""
    if tries == 0 or failures >= tries:
        return 1.0
    if failures == 0:
        return float(1 - (1 - confidence) ** (1 / tries))
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if _at_most(failures, tries, middle) > 1 - confidence:
            low = middle
        else:
            high = middle
    return high


def _at_most(failures: int, tries: int, share: float) -> float:
    return float(sum(comb(tries, n) * share**n * (1 - share) ** (tries - n) for n in range(failures + 1)))


def claim(failures: int, tries: int) -> str:
    """`0 of 59 (< 5.0 %)`."""
    return f"{failures} of {tries} (< {100 * upper(failures, tries):.2g} %)"
