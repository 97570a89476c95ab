"""A page and real servers, both eras, through kills, reloads and lost sessions: nobody is asked anything twice."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
from playwright.async_api import BrowserContext

from browser.conftest import LIMIT, Tab
from processes import ROOT, ServerProcess, served

ERAS = ["modern", "handshake"]
TRAVEL = str(ROOT / "examples" / "travel_ops" / "server.py") + ":mcp"
SHOP = str(Path(__file__).with_name("shop.py")) + ":mcp"
CHANGE = {"leg": "1", "day": "2027-03-23", "flight": "MP103", "go_ahead": True}
HASTE = {"first": 50, "longest": 500}
"""For `retry`: a test's server is back in seconds."""

pytestmark = pytest.mark.timeout(120)


class Ledger:
    """What the tools of a shop have done."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.touch()
        self._before = len(self._all())

    def _all(self) -> list[str]:
        return self.path.read_text().splitlines()

    def lines(self) -> list[str]:
        """Since this test began."""
        return self._all()[self._before :]


@pytest.fixture(scope="module")
async def open_shop(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ServerProcess]:
    """For all tests that leave their server alive."""
    folder = tmp_path_factory.mktemp("shop")
    async with served(SHOP, folder, env={"SHOP_LEDGER": str(folder / "ledger")}) as server:
        yield server


@pytest.fixture
async def doomed_shop(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """For a test that kills it."""
    async with served(SHOP, tmp_path, env={"SHOP_LEDGER": str(tmp_path / "ledger")}) as server:
        yield server


@pytest.fixture
def shop(open_shop: ServerProcess, ledger: Ledger) -> ServerProcess:
    return open_shop


@pytest.fixture
def ledger(request: pytest.FixtureRequest) -> Ledger:
    name = "doomed_shop" if "doomed_shop" in request.fixturenames else "open_shop"
    server: ServerProcess = request.getfixturevalue(name)
    return Ledger(server.folder / "ledger")


@pytest.fixture
async def travel(tmp_path: Path) -> AsyncIterator[ServerProcess]:
    async with served(TRAVEL, tmp_path, env={"TRAVEL_OPS_DB": str(tmp_path / "travel.db")}) as server:
        yield server


def page_of(server: ServerProcess) -> str:
    """A document of this server's origin, to run the client in."""
    return server.url.replace("/mcp", "/page" if server.target == SHOP else "/healthz")


async def opened(tab: Tab, server: ServerProcess, **options: Any) -> Tab:
    """The page, with its client connected."""
    await tab.open(page_of(server))
    started = await tab.start(retry=HASTE, **options)
    assert "error" not in started, started
    return tab


_numbers = itertools.count(1)


def an_order() -> dict[str, str]:
    """Arguments that no other test's call has: an equal call might be taken for the same one."""
    return {"article": f"tea {next(_numbers)}"}


async def asked(tab: Tab, count: int) -> Any:
    """The newest of so many questions."""
    return (await tab.seen("question", count))[count - 1]["question"]


def text_of(outcome: Any) -> str:
    assert "result" in outcome, outcome
    return str(outcome["result"]["content"][0]["text"])


# --- the whole way ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mode", "era"), [("auto", "modern"), ("handshake", "handshake")])
async def test_a_trip_is_changed_by_a_page(tab: Tab, travel: ServerProcess, mode: str, era: str) -> None:
    await opened(tab, travel, mode=mode, answers=CHANGE)
    assert (await tab.run("() => lab.client.connect()"))["era"] == era
    await tab.call("change_itinerary", {"pnr": "QK7P2M"})
    outcome = await tab.outcome()
    assert outcome["result"]["structuredContent"]["status"] == "changed"
    assert len(await tab.events("question")) == 4
    assert [one["acknowledged"] for one in await tab.events("answered")].count(True) == 4
    stages = [(one["stage"], one["mark"]) for one in await tab.events("stage")]
    assert stages[0] == ("searching_data", "begin")
    assert stages[-1] == ("drafting_output", "end")
    everything = await tab.run("() => lab.events")
    assert {one["callId"] for one in everything} == {everything[0]["callId"]}
    assert all(one["timed"] for one in everything)
    assert [key for key in await tab.kept() if key.startswith("call:")] == []


@pytest.mark.parametrize("mode", ERAS)
async def test_a_server_that_is_killed_in_the_middle_costs_nothing_but_time(
    tab: Tab, travel: ServerProcess, mode: str, tmp_path: Path
) -> None:
    await opened(tab, travel, mode=mode)
    await tab.call("change_itinerary", {"pnr": "QK7P2M"})
    await asked(tab, 1)
    await tab.answer({"leg": "1"})
    await asked(tab, 2)
    await travel.kill()
    await tab.answer_soon({"day": "2027-03-23"})
    await tab.seen("answered", 3)
    await travel.start()
    await asked(tab, 3)
    await tab.answer({"flight": "MP103"})
    await asked(tab, 4)
    await travel.restart()
    assert (await tab.answer({"go_ahead": True})).keys() <= {"result"}
    outcome = await tab.outcome()
    assert outcome["result"]["structuredContent"]["status"] == "changed"
    assert len(await tab.events("question")) == 4
    assert await tab.seen("reconnected")
    with closing(sqlite3.connect(tmp_path / "travel.db")) as db:
        effects = db.execute("SELECT kind FROM effects WHERE pnr = 'QK7P2M' ORDER BY n").fetchall()
    assert effects == [("hold_seat",), ("rebook",), ("send_letter",)]


async def test_a_session_that_was_deleted_is_opened_anew_once_for_all_calls(
    tab: Tab, shop: ServerProcess, ledger: Ledger
) -> None:
    await opened(tab, shop, mode="handshake")
    await tab.call("order", an_order())
    await tab.call("order", an_order())
    await tab.seen("question", 2)
    await forget_session(tab, shop)
    await tab.answer_soon({"name": "Ada"})
    await tab.answer_soon({"name": "Bob"})
    await tab.seen("question", 4)
    await tab.answer({"count": 2})
    await tab.answer({"count": 3})
    assert {text_of(await tab.outcome(n)) for n in (0, 1)} == {"2 for Ada", "3 for Bob"}
    assert len(await tab.events("reinitialized")) == 1
    assert [one["question"]["key"] for one in await tab.events("question")] == ["q1", "q1", "q2", "q2"]
    assert sorted(ledger.lines()) == ["pack Ada 2", "pack Bob 3"]


async def forget_session(tab: Tab, server: ServerProcess) -> None:
    session = (await tab.kept())["connection"]
    headers = {"mcp-session-id": session["id"], "mcp-protocol-version": session["version"]}
    async with httpx2.AsyncClient() as http:
        assert (await http.delete(server.url, headers=headers)).status_code == 200


# --- reloads ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ERAS)
async def test_a_reload_with_a_question_open_asks_it_on_the_new_page(
    tab: Tab, shop: ServerProcess, ledger: Ledger, mode: str
) -> None:
    await opened(tab, shop, mode=mode)
    wish = an_order()
    await tab.call("order", wish)
    await asked(tab, 1)
    await tab.answer({"name": "Ada"})
    before = await asked(tab, 2)
    await tab.reload()
    await tab.start(mode=mode, retry=HASTE)
    assert await tab.resume() == [{"name": "order", "args": wish}]
    assert await asked(tab, 1) == before
    assert (await tab.events("resumed"))[0]["name"] == "order"
    await tab.answer({"count": 2})
    assert text_of(await tab.outcome()) == "2 for Ada"
    assert len(await tab.events("question")) == 1
    assert ledger.lines() == ["pack Ada 2"]
    assert await tab.resume() == []


@pytest.mark.parametrize("mode", ERAS)
@pytest.mark.parametrize("hold", ["answers", "acks"])
async def test_a_reload_with_an_answer_on_its_way_asks_nobody_again(
    tab: Tab, shop: ServerProcess, ledger: Ledger, mode: str, hold: str
) -> None:
    """`answers`: it has not left the page; `acks`: the server has it, and the page doesn't know."""
    await opened(tab, shop, mode=mode, hold=hold)
    await tab.call("order", an_order())
    await asked(tab, 1)
    await tab.answer_soon({"name": "Ada"})
    await tab.seen("held")
    await tab.reload()
    await tab.start(mode=mode, retry=HASTE)
    assert len(await tab.resume()) == 1
    assert (await asked(tab, 1))["key"] == "q2"
    await tab.answer({"count": 2})
    assert text_of(await tab.outcome()) == "2 for Ada"
    assert [one["question"]["key"] for one in await tab.events("question")] == ["q2"]
    assert ledger.lines() == ["pack Ada 2"]


@pytest.mark.parametrize(("before", "after"), [("modern", "handshake"), ("handshake", "modern")])
async def test_a_call_goes_on_over_the_other_era_with_the_answer_that_was_given(
    tab: Tab, shop: ServerProcess, ledger: Ledger, before: str, after: str
) -> None:
    await opened(tab, shop, mode=before, hold="answers")
    await tab.call("order", an_order())
    await asked(tab, 1)
    await tab.answer_soon({"name": "Ada"})
    await tab.seen("held")
    await tab.reload()
    await tab.start(mode=after, retry=HASTE)
    assert len(await tab.resume()) == 1
    assert (await asked(tab, 1))["key"] == "q2"
    await tab.answer({"count": 2})
    assert text_of(await tab.outcome()) == "2 for Ada"
    assert ledger.lines() == ["pack Ada 2"]


async def test_two_tabs_never_go_on_with_the_same_call(
    tab: Tab, context: BrowserContext, shop: ServerProcess, ledger: Ledger
) -> None:
    await opened(tab, shop, keep="local")
    await tab.call("order", an_order())
    await asked(tab, 1)
    other = await opened(Tab(await context.new_page()), shop, keep="local")
    assert await other.resume() == []
    await tab.page.close()
    assert len(await other.resume()) == 1
    await asked(other, 1)
    await other.answer(None)
    assert text_of(await other.outcome()) == "no order: decline"
    assert ledger.lines() == []


async def test_a_page_that_can_keep_nothing_says_so_and_goes_on(tab: Tab, shop: ServerProcess) -> None:
    await tab.open(page_of(shop))
    await tab.run(
        "() => { Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError'); }; }"
    )
    await tab.start(answers={"name": "Ada", "count": 1})
    await tab.call("order", an_order())
    assert text_of(await tab.outcome()) == "1 for Ada"
    assert (await tab.events("not-kept"))[0]["error"]["name"] == "QuotaExceededError"


# --- what may be made again -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ERAS)
async def test_a_stateless_call_whose_server_died_is_not_made_again(
    tab: Tab, doomed_shop: ServerProcess, ledger: Ledger, mode: str
) -> None:
    await opened(tab, doomed_shop, mode=mode)
    await tab.call("charge")
    await died(doomed_shop)
    error = (await tab.outcome())["error"]
    assert error["name"] == "OutcomeUnknown"
    assert "charge, which may have been done" in error["message"]
    assert (await tab.events("gave-up"))[0]["known"] == "unknown"
    assert await tab.resume() == []
    assert ledger.lines() == ["charge"]


@pytest.mark.parametrize("mode", ERAS)
async def test_a_call_that_only_reads_is_made_again(
    tab: Tab, doomed_shop: ServerProcess, ledger: Ledger, mode: str
) -> None:
    await opened(tab, doomed_shop, mode=mode)
    await tab.call("stock")
    await died(doomed_shop)
    await doomed_shop.start()
    assert text_of(await tab.outcome()) == "plenty"
    assert ledger.lines() == ["stock", "stock"]


async def died(server: ServerProcess) -> None:
    assert server.process is not None
    async with asyncio.timeout(LIMIT):
        await server.process.wait()


# --- the person -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ERAS)
async def test_an_answer_that_the_server_refuses_is_asked_for_again_with_the_reason(
    tab: Tab, shop: ServerProcess, mode: str
) -> None:
    await opened(tab, shop, mode=mode)
    await tab.call("order", an_order())
    await asked(tab, 1)
    invalid = await tab.answer({"name": 5})
    assert invalid["error"]["errors"] == {"name": "must be text"}
    await tab.answer_soon({"name": "ada"})
    again = await asked(tab, 2)
    assert again["key"] == "q1"
    assert "The last answer was not accepted" in again["message"]
    assert "error" not in await tab.answer({"name": "Ada"})
    assert (await asked(tab, 3))["key"] == "q2"
    await tab.answer({"count": 1})
    assert text_of(await tab.outcome()) == "1 for Ada"


async def test_a_question_answered_elsewhere_is_closed_on_the_page(tab: Tab, shop: ServerProcess) -> None:
    await opened(tab, shop, mode="handshake")
    await tab.call("order", an_order())
    await asked(tab, 1)
    (run,) = [kept["questions"]["q1"]["runId"] for key, kept in (await tab.kept()).items() if key.startswith("call:")]
    command = ["runs", "answer", run, "name=Eve", "--store", shop.store]
    await milepost(*command)
    assert (await asked(tab, 2))["key"] == "q2"
    assert (await tab.events("answered"))[0]["elsewhere"] is True
    assert await tab.run("() => lab.client.questions.map((one) => one.key)") == ["q2"]
    await tab.answer({"count": 1})
    assert text_of(await tab.outcome()) == "1 for Eve"


async def milepost(*arguments: str) -> None:
    program = Path(sys.executable).with_name("milepost")
    process = await asyncio.create_subprocess_exec(program, *arguments, stdin=asyncio.subprocess.DEVNULL)
    async with asyncio.timeout(LIMIT):
        assert await process.wait() == 0


@pytest.mark.parametrize("mode", ERAS)
async def test_a_handler_that_fails_leaves_its_question_open(tab: Tab, shop: ServerProcess, mode: str) -> None:
    await opened(tab, shop, mode=mode)
    await tab.run("() => { lab.client.onQuestion = async () => { throw new Error('no form'); }; }")
    await tab.call("order", an_order())
    failed = (await tab.seen("question", 2))[1]
    assert failed["error"]["message"] == "no form"
    await tab.answer(None)
    assert text_of(await tab.outcome()) == "no order: decline"
    assert (await tab.answer(None))["error"]["message"]


@pytest.mark.parametrize("mode", ERAS)
async def test_a_call_that_is_no_longer_wanted_ends_at_once(tab: Tab, shop: ServerProcess, mode: str) -> None:
    await opened(tab, shop, mode=mode)
    script = """async (wish) => {
        const stop = new AbortController();
        lab.call("order", wish, { signal: stop.signal });
        await lab.seen("question");
        stop.abort(new Error("enough"));
        return lab.outcome();
    }"""
    assert (await tab.run(script, an_order()))["error"]["message"] == "enough"
    assert (await tab.events("gave-up"))[0]["known"] == "cancelled"
    assert await tab.run("() => lab.client.questions.length") == 0
    assert await tab.resume() == []


# --- the rest -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ERAS)
async def test_tools_with_names_that_no_header_holds_are_called(tab: Tab, shop: ServerProcess, mode: str) -> None:
    await opened(tab, shop, mode=mode)
    assert "grüße" in await tab.run("async () => (await lab.client.listTools()).map((tool) => tool.name)")
    await tab.call("grüße", {"name": "Welt"})
    assert text_of(await tab.outcome()) == "Grüße, Welt"


async def test_closing_ends_the_session_and_what_is_pending(tab: Tab, shop: ServerProcess) -> None:
    await opened(tab, shop, mode="handshake")
    await tab.call("order", an_order())
    await asked(tab, 1)
    session = (await tab.kept())["connection"]["id"]
    await tab.run("() => lab.client.close()")
    assert (await tab.outcome())["error"]["message"] == "The client was closed"
    assert await tab.kept() == {}
    async with httpx2.AsyncClient() as http:
        ping = {"jsonrpc": "2.0", "id": 1, "method": "ping"}
        headers = {"mcp-session-id": session, "accept": "application/json, text/event-stream"}
        assert (await http.post(shop.url, json=ping, headers=headers)).status_code == 404


async def test_events_can_be_read_in_a_loop_until_the_client_is_closed(tab: Tab, shop: ServerProcess) -> None:
    await opened(tab, shop, answers={"name": "Ada", "count": 1})
    script = """async (wish) => {
        const kinds = [];
        const reading = (async () => { for await (const event of lab.client.events()) kinds.push(event.kind); })();
        lab.call("order", wish);
        await lab.outcome();
        await lab.client.close();
        await reading;
        return kinds;
    }"""
    kinds = await tab.run(script, an_order())
    assert kinds[0] == "sent"
    assert kinds.count("question") == 2
