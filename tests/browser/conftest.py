"""A real headless Chromium for each test process, and a page of its own for each test.

`make test` installs Debian's `chromium`; without it these tests fail and say so, for a client that no browser has
run is not known to work (docs/decisions/0014).
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from browser.peer import Peer, peering

LIMIT = 30.0
"""Seconds that any wait of these tests may take."""
NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-dev-shm-usage"]
"""Tests run as root in containers, with small /dev/shm."""


@pytest.fixture(scope="package")
def anyio_backend() -> str:
    """One event loop for this folder, and no longer: the browser's connection lives in it."""
    return "asyncio"


@pytest.fixture(scope="package")
async def chromium() -> AsyncIterator[Browser]:
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.fail("no Chromium was found: install it (Debian: apt-get install chromium), then run the tests again")
    async with async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        await browser.close()


@pytest.fixture(scope="package")
async def context(chromium: Browser) -> AsyncIterator[BrowserContext]:
    """One profile; tests keep apart by tabs, each with a `sessionStorage` of its own, and by their servers' origins."""
    async with asyncio.timeout(LIMIT):
        context = await chromium.new_context()
        await context.add_init_script(path=Path(__file__).with_name("harness.js"))
    yield context
    await context.close()


class Tab:
    """A page with the harness in it."""

    def __init__(self, page: Page) -> None:
        self.page = page

    async def run(self, script: str, value: Any = None) -> Any:
        async with asyncio.timeout(LIMIT):
            return await self.page.evaluate(script, value)

    async def open(self, url: str) -> Tab:
        async with asyncio.timeout(LIMIT):
            await self.page.goto(url)
        return self

    async def reload(self) -> None:
        async with asyncio.timeout(LIMIT):
            await self.page.reload()

    async def start(self, **options: Any) -> Any:
        """Make the client and connect it. Returns `{result}` or `{error}`."""
        return await self.run("(options) => lab.start(options)", options)

    async def call(self, name: str, arguments: Any = None, **wishes: Any) -> None:
        await self.run("([...call]) => void lab.call(...call)", [name, arguments or {}, wishes])

    async def outcome(self, n: int = 0) -> Any:
        return await self.run("(n) => lab.outcome(n)", n)

    async def seen(self, kind: str, count: int = 1) -> list[Any]:
        """The events of a kind, once there are so many."""
        found: list[Any] = await self.run("([kind, count]) => lab.seen(kind, count)", [kind, count])
        return found

    async def events(self, kind: str) -> list[Any]:
        found: list[Any] = await self.run("(kind) => lab.events.filter((event) => event.kind === kind)", kind)
        return found

    async def answer(self, content: Any, n: int = 0) -> Any:
        return await self.run("([content, n]) => lab.answer(content, n)", [content, n])

    async def answer_soon(self, content: Any, n: int = 0) -> None:
        """Give the answer, and don't wait for the server to have it."""
        await self.run("([content, n]) => void (lab.given = lab.answer(content, n))", [content, n])

    async def resume(self) -> Any:
        return await self.run("() => lab.resume()")

    async def kept(self) -> Any:
        return await self.run("() => lab.kept()")


@pytest.fixture
async def tab(context: BrowserContext) -> AsyncIterator[Tab]:
    page = await context.new_page()
    yield Tab(page)
    await page.close()


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with peering() as peer:
        yield peer


@pytest.fixture
async def page(tab: Tab, peer: Peer) -> Tab:
    return await tab.open(f"{peer.origin}/page")
