"""What every test of the host leaves as it found it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """`logs.configure` takes over the whole process's logging; put it back."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    loggers = {n: g for n, g in logging.root.manager.loggerDict.items() if isinstance(g, logging.Logger)}
    kept = {n: (list(g.handlers), g.propagate, g.level) for n, g in loggers.items()}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, (own, propagate, old) in kept.items():
        loggers[name].handlers[:] = own
        loggers[name].propagate = propagate
        loggers[name].setLevel(old)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current directory; modules imported from it are forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]
