"""docs/client.md: its tables are those of the code, and what it shows runs."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from milepost import client
from milepost.client import events
from processes import ROOT, served

pytestmark = pytest.mark.anyio

PAGE = (ROOT / "docs" / "client.md").read_text("utf-8")
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
URL = "http://127.0.0.1:8000/mcp"


@pytest.fixture
def policy_doc(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    import policy_doc  # noqa: PLC0415  it is a script

    return policy_doc


def test_the_limits_are_those_of_the_code(policy_doc: ModuleType) -> None:
    assert policy_doc.page_with(PAGE) == PAGE, "run scripts/policy_doc.py"


def test_every_error_and_every_event_is_named() -> None:
    errors = {name for name in client.__all__ if isinstance(getattr(client, name), type)}
    errors = {name for name in errors if issubclass(getattr(client, name), Exception)} - {"CallError"}
    rows = set(re.findall(r"^\| `(\w+)`(?: \(| itself)?.* \|$", PAGE, re.MULTILINE))
    assert errors <= rows
    kinds = {kind.__name__ for kind in events.Event.__subclasses__()}
    assert kinds == set(re.findall(r"`([A-Z]\w+)`", PAGE.partition("\n`Sent`")[2].join(["`Sent`", ""]).split(";")[0]))


def test_every_recipe_is_named_with_the_version_that_it_is_tested_with() -> None:
    recipes = {path.name for path in (ROOT / "examples" / "recipes").glob("with_*.py")}
    assert recipes == set(re.findall(r"recipes/(with_\w+\.py)", PAGE))
    for needed in (ROOT / "examples" / "recipes" / "requirements").glob("*.in"):
        assert (needed.with_suffix(".txt")).exists()
        for name, version in re.findall(r"^([\w-]+)==(\d+\.\d+)", needed.read_text(), re.MULTILINE):
            assert name.startswith("langgraph-checkpoint") or f" {version}" in PAGE, f"{name} {version}"


@pytest.mark.long
@pytest.mark.timeout(120)
@pytest.mark.parametrize("number", range(len(SNIPPETS)))
async def test_what_the_page_shows_runs(number: int, tmp_path: Path) -> None:
    env = {"TRAVEL_OPS_DB": str(tmp_path / "travel.db")}
    async with served("examples/travel_ops/server.py:mcp", tmp_path, env=env) as server:
        (tmp_path / "snippet.py").write_text(SNIPPETS[number].replace(URL, server.url))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-W", "error", "snippet.py", cwd=tmp_path,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        async with asyncio.timeout(60):
            said = (await process.communicate())[0].decode()
    assert process.returncode == 0, said
    assert ("'status': 'declined'" if number == 0 else "request_refund") in said
