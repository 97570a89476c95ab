"""The ledger keeps every mark that was written, whoever dies, and half a line is not read."""

from __future__ import annotations

from pathlib import Path

import pytest

from drills import ledger
from drills.ledger import Ledger


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "ledger.jsonl"
    monkeypatch.setenv(ledger.PLACE, str(path))
    return path


def begin(token: str) -> None:
    ledger.mark("begin", conversation="h1-1", step="pay", call="[]", key="k", run="run-1", token=token)


def test_an_effect_that_has_begun_and_not_ended_is_in_flight_in_its_process(path: Path) -> None:
    reading = Ledger(path)
    assert reading.effects() == []
    begin("t1")
    (effect,) = reading.effects()
    assert effect.end is None
    assert reading.in_flight([effect.pid]) == [effect]
    assert reading.in_flight([effect.pid + 1]) == []
    ledger.mark("end", token="t1")
    (effect,) = reading.effects()
    assert effect.end is not None
    assert reading.in_flight([effect.pid]) == []


def test_half_a_line_is_read_once_it_is_whole(path: Path) -> None:
    begin("t1")
    begin("t2")
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    reading = Ledger(path)
    assert [effect.token for effect in reading.effects()] == ["t1"]
    path.write_bytes(whole)
    assert [effect.token for effect in reading.effects()] == ["t1", "t2"]
