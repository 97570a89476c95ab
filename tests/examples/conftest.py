"""A travel-ops data file of its own for each test."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

UVICORN = ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi")


@pytest.fixture
def travel_db(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "travel_ops.db"
    monkeypatch.setenv("TRAVEL_OPS_DB", str(path))
    return path


@pytest.fixture(autouse=True)
def uvicorn_as_it_was() -> Iterator[None]:
    """A `uvicorn.Config` sets its loggers' levels for the whole process; later tests may want to hear them."""
    levels = {name: logging.getLogger(name).level for name in UVICORN}
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
