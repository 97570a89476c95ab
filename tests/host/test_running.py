"""How our own processes run."""

from __future__ import annotations

import subprocess
import sys

_SETTLED = """
import gc
import milepost.app
from milepost.running import settle
before = gc.get_threshold()
settle()
print(gc.get_freeze_count() > 100_000, gc.get_threshold()[0] > before[0], gc.get_threshold()[1:] == before[1:])
"""


def test_a_process_that_has_started_collects_no_more_of_what_it_started_with() -> None:
    told = subprocess.run([sys.executable, "-c", _SETTLED], capture_output=True, text=True, timeout=60, check=True)
    assert told.stdout.split() == ["True", "True", "True"]
