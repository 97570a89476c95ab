"""A process with a wrong clock: its wall clock is off by minutes, what it waits by is not."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab import faketime

# Not `time.sleep`: with a shifted clock libfaketime makes an error of it.
ASK = """
import select, time
begun = time.monotonic()
select.select((), (), (), 0.01)
print(time.time(), time.monotonic() - begun)
"""


@pytest.mark.parametrize("seconds", [300.0, -300.0])
def test_the_wall_clock_is_shifted_or_it_is_said_that_it_can_not_be(seconds: float) -> None:
    if faketime.library() is None:
        with pytest.raises(faketime.NoFaketime, match="apt-get install libfaketime"):
            faketime.shifted(seconds)
        return
    env = {**os.environ, **faketime.shifted(seconds)}
    before = time.time()
    told = subprocess.run([sys.executable, "-c", ASK], env=env, capture_output=True, text=True, check=True).stdout
    wall, waited = map(float, told.split())
    assert before + seconds - 1 <= wall <= time.time() + seconds + 1
    assert 0.005 <= waited < 10


def test_a_named_library_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(faketime.LIBRARY, str(tmp_path / "libfaketime.so"))
    assert faketime.shifted(-1.5)["FAKETIME"] == "-1.5s"
    assert faketime.shifted(1.5)["LD_PRELOAD"] == str(tmp_path / "libfaketime.so")


def test_without_a_library_it_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(faketime.LIBRARY, raising=False)
    monkeypatch.setattr(faketime, "PATTERNS", ())
    with pytest.raises(faketime.NoFaketime, match="apt-get install libfaketime"):
        faketime.shifted(1.0)
