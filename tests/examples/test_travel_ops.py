"""The travel assistant, hosted by Milepost and driven by the SDK's own client on both eras."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.types import CallToolResult, CreateMessageResult, ElicitResult, TextContent

from milepost.core.outside import Find
from travel_ops import data, stateless_server
from travel_ops.server import mcp as travel
from wire.serving import Server, serving

pytestmark = pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning")  # sampling

ERAS = ["legacy", "2026-07-28"]
LIMIT = 20.0

Answers = Mapping[str, Any]


class Person:
    """Answers forms by field name, from a list of answers per field; `"-"` declines. Keeps what it was asked."""

    def __init__(self, **answers: Any) -> None:
        self._answers = {name: list(given) if isinstance(given, list) else [given] for name, given in answers.items()}
        self.asked: list[Any] = []
        self.before: Callable[[str], Awaitable[None]] | None = None

    async def __call__(self, context: Any, params: Any) -> ElicitResult:
        self.asked.append(params)
        content = {}
        for name in params.requested_schema["properties"]:
            if self.before is not None:
                await self.before(name)
            given = self._answers[name].pop(0)
            if given == "-":
                return ElicitResult(action="decline")
            content[name] = given
        return ElicitResult(action="accept", content=content)


async def model(context: Any, params: Any) -> CreateMessageResult:
    return CreateMessageResult(role="assistant", content=TextContent(type="text", text="A warm letter."), model="m")


@pytest.fixture
async def server(travel_db: Path, tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(travel, tmp_path / "store.db", single_user=True) as running:
        yield running


@asynccontextmanager
async def client(server: Server, era: str, person: Person, *, samples: bool = True) -> AsyncIterator[Client]:
    callback = model if samples else None
    with anyio.fail_after(LIMIT):
        async with Client(server.url, mode=era, elicitation_callback=person, sampling_callback=callback) as connected:
            yield connected


async def call(server: Server, era: str, tool: str, person: Person, **arguments: Any) -> CallToolResult:
    async with client(server, era, person) as connected:
        return await connected.call_tool(tool, arguments)


def rows(query: str, *values: Any) -> Sequence[tuple[Any, ...]]:
    with closing(sqlite3.connect(data.path())) as db:
        return db.execute(query, values).fetchall()


def effects(pnr: str) -> list[str]:
    return [kind for (kind,) in rows("SELECT kind FROM effects WHERE pnr = ? ORDER BY n", pnr)]


def held_seats() -> int:
    return int(rows("SELECT count(*) FROM seats WHERE state = 'held'")[0][0])


CHANGE = {"leg": "1", "day": "2027-03-23", "flight": "MP103", "go_ahead": True}


@pytest.mark.parametrize("era", ERAS)
async def test_a_trip_is_changed_by_a_conversation_on_both_eras(server: Server, era: str) -> None:
    person = Person(**CHANGE)
    result = await call(server, era, "change_itinerary", person, pnr="QK7P2M")
    assert result.structured_content is not None
    assert result.structured_content["status"] == "changed"
    assert result.structured_content["booking"]["number"] == "MP103"
    assert result.structured_content["letter"] == "A warm letter."
    assert effects("QK7P2M") == ["hold_seat", "rebook", "send_letter"]
    assert len(person.asked) == 4


@pytest.mark.parametrize("era", ERAS)
async def test_a_client_without_a_model_gets_the_letter_from_the_template(server: Server, era: str) -> None:
    async with client(server, era, Person(**CHANGE), samples=False) as connected:
        result = await connected.call_tool("change_itinerary", {"pnr": "QK7P2M"})
    assert result.structured_content is not None
    assert result.structured_content["letter"].startswith("Dear Amira Haddad")


async def test_a_day_out_of_season_is_asked_for_again_with_the_reason(server: Server) -> None:
    person = Person(**CHANGE | {"day": ["2027-06-01", "2027-03-23"]})
    result = await call(server, "2026-07-28", "change_itinerary", person, pnr="QK7P2M")
    assert not result.is_error
    assert "2027-06-01 is not between 2027-03-01 and 2027-04-30" in person.asked[2].message


async def test_a_day_that_stays_out_of_season_ends_the_call_with_the_reason(server: Server) -> None:
    person = Person(leg="1", day=["2027-06-01"] * 3)
    result = await call(server, "legacy", "change_itinerary", person, pnr="QK7P2M")
    assert result.is_error
    assert "None of 3 answers" in result.content[0].text  # type: ignore[union-attr]


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize("answer", ["-", False])
async def test_who_does_not_agree_to_the_price_keeps_the_trip_and_frees_the_seat(
    server: Server, era: str, answer: object
) -> None:
    person = Person(**CHANGE | {"go_ahead": answer})
    result = await call(server, era, "change_itinerary", person, pnr="QK7P2M")
    assert result.structured_content is not None
    assert result.structured_content["status"] == "unchanged"
    assert effects("QK7P2M") == ["hold_seat", "release_seat"]
    assert held_seats() == 0


async def test_a_run_that_is_cancelled_while_it_asks_frees_the_held_seat(server: Server) -> None:
    person = Person(**CHANGE)

    async def cancel(field: str) -> None:
        if field == "go_ahead":
            assert held_seats() == 1
            (run,) = await server.runs.find(Find())
            await server.runs.cancel(run.id, reason="operator")

    person.before = cancel
    with anyio.fail_after(LIMIT):
        async with client(server, "legacy", person) as connected:
            result = await connected.call_tool("change_itinerary", {"pnr": "QK7P2M"})
    assert result.is_error
    assert "this run was ended" in result.content[0].text  # type: ignore[union-attr]
    assert effects("QK7P2M") == ["hold_seat", "release_seat"]
    assert held_seats() == 0


async def test_a_small_refund_needs_nobody_and_a_large_one_a_supervisor(server: Server) -> None:
    approving = Person(reason="other", decision="approve", amount=150, approved_by="Ines")
    large = await call(server, "2026-07-28", "request_refund", approving, pnr="ZB3N6D")
    assert large.structured_content is not None
    assert large.structured_content["refund"]["amount"] == 150
    assert large.structured_content["refund"]["approved_by"] == "Ines"
    assert approving.asked[1].requested_schema["properties"]["amount"]["maximum"] > 100
    lite = await call(server, "2026-07-28", "request_refund", Person(reason="other"), pnr="R4T9WX")
    assert lite.structured_content is not None
    assert lite.structured_content["reason"] == "LITE fares are not refunded."


async def test_a_supervisor_may_reject_a_refund(server: Server) -> None:
    rejecting = Person(reason="illness", decision="reject", amount=0, approved_by="Ines")
    result = await call(server, "legacy", "request_refund", rejecting, pnr="ZB3N6D")
    assert result.structured_content is not None
    assert result.structured_content["reason"] == "Rejected by Ines."
    assert effects("ZB3N6D") == []


@pytest.mark.parametrize("era", ERAS)
async def test_a_trip_is_planned_within_a_budget(server: Server, era: str) -> None:
    person = Person(destination="VIE", day="2027-03-10", nights=4, budget=2000, go_ahead=True)
    result = await call(server, era, "plan_trip", person, traveller="Haddad", origin="LIS")
    assert result.structured_content is not None
    assert [flight["number"] for flight in result.structured_content["flights"]] == ["MP201", "MP202"]
    assert result.structured_content["sketch"] == "A warm letter."


async def test_a_plan_over_the_budget_says_what_it_would_cost(server: Server) -> None:
    person = Person(destination="VIE", day="2027-03-10", nights=4, budget=100)
    result = await call(server, "legacy", "plan_trip", person, traveller="Haddad", origin="LIS")
    assert result.is_error
    assert "which is more than 100" in result.content[0].text  # type: ignore[union-attr]


@pytest.mark.parametrize("era", ERAS)
@pytest.mark.parametrize(("tool", "arguments"), [("change_itinerary", {}), ("request_refund", {})])
async def test_an_unknown_itinerary_is_refused_in_plain_words(
    server: Server, era: str, tool: str, arguments: Answers
) -> None:
    result = await call(server, era, tool, Person(), pnr="NOSUCH", **arguments)
    assert result.is_error
    assert "There is no itinerary 'NOSUCH'" in result.content[0].text  # type: ignore[union-attr]


@pytest.mark.parametrize("era", ERAS)
async def test_what_only_reads_is_served_as_by_any_server(server: Server, era: str) -> None:
    async with client(server, era, Person()) as connected:
        found = await connected.call_tool("find_itinerary", {"query": "tanaka"})
        status = await connected.call_tool("flight_status", {"number": "MP101", "day": "2027-03-17"})
        unknown = await connected.call_tool("fare_rules", {"code": "FIRST"})
        page = await connected.read_resource("travel://itineraries/QK7P2M")
        policy = await connected.read_resource("travel://policies/changes")
        prompt = await connected.get_prompt("handle_disruption", {"pnr": "QK7P2M"})
    assert found.structured_content is not None
    assert found.structured_content["result"][0]["pnr"] == "ZB3N6D"
    assert status.structured_content is not None
    assert status.structured_content["number"] == "MP101"
    assert unknown.is_error
    assert "Amira Haddad" in page.contents[0].text  # type: ignore[union-attr]
    assert "25" in policy.contents[0].text  # type: ignore[union-attr]
    assert "QK7P2M" in prompt.messages[0].content.text  # type: ignore[union-attr]


async def test_the_stateless_assistant_changes_at_once_and_asks_nothing(travel_db: Path, tmp_path: Path) -> None:
    change = {"pnr": "QK7P2M", "leg": 1, "number": "MP103", "day": "2027-03-23"}
    async with serving(stateless_server.mcp, tmp_path / "store.db") as server:
        async with client(server, "2026-07-28", Person()) as connected:
            booked = await connected.call_tool("change_itinerary", change)
            refused = await connected.call_tool("change_itinerary", change | {"leg": 9})
        assert booked.structured_content is not None
        assert booked.structured_content["number"] == "MP103"
        assert refused.is_error
    assert effects("QK7P2M") == ["hold_seat", "rebook"]
