"""The page in docs/browser.md is run as it stands there, by clicks and keys, with a reload and a kill in the middle."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from browser.conftest import LIMIT, Tab
from processes import ROOT, ServerProcess, served

TRAVEL = str(ROOT / "examples" / "travel_ops" / "server.py") + ":mcp"
ANSWERS = {"leg": "1", "day": "2027-03-23", "flight": "MP103", "go_ahead": True}

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def travel(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    async with served(TRAVEL, tmp_path, env={"TRAVEL_OPS_DB": str(tmp_path / "travel.db")}) as server:
        yield server


def page_of_the_docs() -> str:
    found = re.search(r"```html\n(.*?)```", (ROOT / "docs" / "browser.md").read_text(), re.DOTALL)
    assert found is not None
    return found[1]


async def answer(tab: Tab, name: str) -> None:
    """Fill in the form that asks for this, and send it."""
    field = tab.page.locator(f"[name={name}]")
    value = ANSWERS[name]
    if value is True:
        await field.check()
    elif await field.evaluate("(one) => one.tagName") == "SELECT":
        await field.select_option(value)
    else:
        await field.fill(str(value))
    await tab.page.get_by_role("button", name="Send").click()


async def test_the_page_of_the_docs_survives_a_reload_and_a_kill(tab: Tab, travel: ServerProcess) -> None:
    async with asyncio.timeout(LIMIT * 3):
        await tab.open(travel.url.replace("/mcp", "/healthz"))
        await tab.page.set_content(page_of_the_docs())
        await answer(tab, "leg")
        await tab.page.locator("[name=day]").wait_for()
        await tab.reload()
        await tab.page.set_content(page_of_the_docs())
        await answer(tab, "day")
        await tab.page.locator("[name=flight]").wait_for()
        await travel.restart()
        await answer(tab, "flight")
        await answer(tab, "go_ahead")
        await tab.page.get_by_text('"status": "changed"').wait_for()
