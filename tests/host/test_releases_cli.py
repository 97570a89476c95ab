"""`milepost` for several releases: what is given to which, who is there, and which runs wait for a replica."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from host.test_cli import STORE, a_waiting_run, refused, say
from host.travel_src import TRAVEL
from milepost import operate, showing
from milepost.app import Milepost
from milepost.seams import Store
from milepost.settings import Settings

WHY = "no replica accepts version 1 of plan; it goes on when one does"


@pytest.fixture
def travel(folder: Path) -> Path:
    (folder / "travel_cli.py").write_text(TRAVEL)
    return folder


@asynccontextmanager
async def running(release: str) -> AsyncIterator[Store]:
    app = Milepost("travel_cli:mcp", store=STORE, release=release)
    async with asyncio.timeout(20), app.running() as parts:
        yield parts.store


def test_a_run_that_nobody_goes_on_with_says_so_in_the_list_and_on_its_page(
    travel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_id = a_waiting_run()
    assert WHY not in say(capsys, "runs", "show", run_id, "--store", STORE)[1], "it waits for a person"
    say(capsys, "runs", "answer", run_id, "day=Friday", "--store", STORE)
    for command in (["list", "ready"], ["show", run_id]):
        code, out, _ = say(capsys, "runs", *command, "--store", STORE)
        assert code == 0
        assert WHY in " ".join(out.split())
    _, out, _ = say(capsys, "runs", "list", "--json", "--store", STORE)
    assert [line["waits_for"] for line in json.loads(out)] == [WHY]
    _, out, _ = say(capsys, "runs", "show", run_id, "--json", "--store", STORE)
    assert json.loads(out)["waits_for"] == WHY


def test_what_is_given_is_shown_with_its_shares_and_taken_back(
    travel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a_waiting_run()
    _, out, _ = say(capsys, "store", "give", "--store", STORE)
    assert "New runs go to any replica that accepts their version." in out
    code, out, _ = say(capsys, "store", "give", "*", "2026.11=95", "2026.12=5", "--store", STORE)
    assert code == 0
    assert "no replica of release 2026.11 serves *" in out
    assert "95 %" in out
    say(capsys, "store", "give", "plan", "2026.12", "--store", STORE)
    _, out, _ = say(capsys, "store", "give", "--json", "--store", STORE)
    given = {"*": {"2026.11": 95.0, "2026.12": 5.0}, "plan": {"2026.12": 1.0}}
    assert json.loads(out) == {"given": given, "replicas": []}
    say(capsys, "store", "give", "plan", "--nobody", "--store", STORE)
    _, out, _ = say(capsys, "store", "give", "--json", "--store", STORE)
    assert list(json.loads(out)["given"]) == ["*"]


def test_a_wrong_share_is_one_sentence(travel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_waiting_run()
    assert "not of the form RELEASE=WEIGHT" in refused(capsys, "store", "give", "plan", "a=much", "--store", STORE)
    assert "a weight above 0" in refused(capsys, "store", "give", "plan", "a=0", "--store", STORE)
    assert "a release has a name" in refused(capsys, "store", "give", "plan", "=5", "--store", STORE)
    assert "--nobody wants a tool" in refused(capsys, "store", "give", "--nobody", "--store", STORE)


def test_the_replicas_are_listed_by_release_with_what_they_accept(travel: Path) -> None:
    async def work() -> tuple[Any, list[str], list[str]]:
        async with running("2026.11"), operate.at_store(Settings.read(store={"url": STORE})) as store:
            absent = await operate.give(store, "plan", {"2026.11": 1.0, "2026.12": 1.0})
            served = await operate.give(store, "nothing", {"2026.11": 1.0})
            return await operate.releases(store), absent, served

    (given, replicas), absent, served = asyncio.run(work())
    assert given["plan"] == {"2026.11": 1.0, "2026.12": 1.0}
    assert (absent, served) == (["2026.12"], ["2026.11"])
    console = Console(width=200, file=io.StringIO())
    with console.capture() as captured:
        console.print(showing.releases_page(given, replicas))
    assert "letter 1, plan 1" in captured.get()
    (line,) = showing.releases_whole(given, replicas)["replicas"]
    assert (line["release"], line["alive"], line["accepts"]) == ("2026.11", True, ["letter 1", "plan 1"])
