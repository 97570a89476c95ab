"""Servers that the tests of a module share: real `milepost serve` processes."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from calling.ptys import LIMIT, Ran, program
from milepost import cli
from processes import ROOT, free_port


@contextmanager
def serving(target: str, folder: Path) -> Iterator[str]:
    """The URL of a server that runs until the end of this."""
    port = free_port()
    env = {**os.environ, "TRAVEL_OPS_DB": str(folder / "travel.db"), "COUNTER_GATE": str(folder / "gate")}
    arguments = ["serve", target, "--port", str(port), "--store", f"sqlite:///{folder / 'm.db'}", "--single-user"]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen([program(), *arguments], cwd=ROOT, env=env, stdout=log, stderr=log)
    try:
        _ready(process, port, folder)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.terminate()
        try:
            process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(LIMIT)


def _ready(process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        assert process.poll() is None, (folder / "server.log").read_text()
        try:
            if httpx2.get(f"http://127.0.0.1:{port}/readyz").status_code == 200:
                return
        except httpx2.TransportError:
            pass
        time.sleep(0.05)
    raise AssertionError((folder / "server.log").read_text())


@pytest.fixture(scope="module")
def counter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of tests/calling/counter.py."""
    with serving("tests/calling/counter.py:mcp", tmp_path_factory.mktemp("counter")) as url:
        yield url


@pytest.fixture(scope="module")
def gate(counter: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What lets the counter's long step go on, once it exists."""
    return next(tmp_path_factory.getbasetemp().glob("counter*")) / "gate"


@pytest.fixture(scope="module")
def travel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the travel assistant."""
    with serving("examples/travel_ops/server.py:mcp", tmp_path_factory.mktemp("travel")) as url:
        yield url


@pytest.fixture
def here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], logging_as_before: None
) -> Callable[..., Ran]:
    """Runs a command in this process, without a terminal."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def run(*arguments: str) -> Ran:
        with pytest.raises(SystemExit) as ended:
            cli.main(list(arguments))
        out = capsys.readouterr()
        return Ran(int(ended.value.code or 0), out.out, out.err)

    return run
