"""A wrong clock for one process: libfaketime, where the machine has it (Debian: `apt-get install libfaketime`)."""

from __future__ import annotations

import glob
import os

PATTERNS = (
    "/usr/lib/*/faketime/libfaketimeMT.so.1",
    "/usr/lib*/faketime/libfaketimeMT.so.1",
    "/usr/local/lib/faketime/libfaketimeMT.so.1",
)
LIBRARY = "MILEPOST_LAB_FAKETIME"


class NoFaketime(Exception):
    """libfaketime is nowhere to be found."""


def library() -> str | None:
    """Where libfaketime is; None: nowhere that we know of."""
    if named := os.environ.get(LIBRARY):
        return named
    return next((found for pattern in PATTERNS for found in sorted(glob.glob(pattern))), None)


def shifted(seconds: float) -> dict[str, str]:
    """The environment of a process whose wall clock is wrong, its monotonic clock right. Raises NoFaketime."""
    found = library()
    if found is None:
        raise NoFaketime("there is no libfaketime on this machine: `apt-get install libfaketime`")
    return {
        "LD_PRELOAD": found,
        "FAKETIME": f"{seconds:+g}s",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "FAKETIME_NO_CACHE": "1",
        "NO_FAKE_STAT": "1",
    }
