"""What goes wrong in the hands of a client or an author, over HTTP to a real process: told clearly, nothing lost."""

from __future__ import annotations

import asyncio
import json
import resource
from pathlib import Path

import httpx2
import pytest

from badinput.shop import ASKABLE, LIMIT, Shop, buying, open_shop, retry, whole
from wire.serving import call

pytestmark = pytest.mark.anyio


async def test_a_step_value_that_can_not_be_stored_is_named_and_its_effect_is_not_repeated(tmp_path: Path) -> None:
    async with asyncio.timeout(LIMIT), open_shop(tmp_path) as shop:
        result = await shop.ask(call("odd"))
        said = result["content"][0]["text"]
        assert result["isError"] is True
        assert "open_socket" in said
        assert "object" in said
        assert shop.ledger == ["opened"]
        code, listed = await shop.runs("list", "failed", "--json")
        assert (code, len(json.loads(listed))) == (0, 1)
        assert (await shop.ask(call("add", {"a": 1, "b": 2})))["structuredContent"] == {"result": 3}


async def _stuck(shop: Shop) -> tuple[dict[str, object], str, str]:
    """A run that was asked, then edited under, then answered: (its first result, what its caller is told, its id)."""
    first = await shop.ask(buying("lamp"))
    run_id = first["_meta"]["milepost/run_id"]
    await shop.edit("await reserve(item)", 'await reserve(item + " (new)")')
    told = await shop.ask(retry(buying("lamp"), first, sure=True))
    assert told["isError"] is True
    return first, told["content"][0]["text"], run_id


async def test_a_workflow_edited_under_a_run_stops_it_names_both_calls_and_runs_nothing(tmp_path: Path) -> None:
    async with asyncio.timeout(LIMIT), open_shop(tmp_path) as shop:
        first, told, run_id = await _stuck(shop)
        assert "replay mismatch" in told
        assert "lamp (new)" in told or "reserve(" in told or "reserve" in told
        assert f"milepost runs retry {run_id}" in told
        assert "--accept-drift" in told
        assert shop.ledger == ["reserve lamp"]
        _, listed = await shop.runs("list", "stuck", "--json")
        assert [run["run_id"] for run in json.loads(listed)] == [run_id]
        assert "replay mismatch" in json.loads(listed)[0]["reason"]

        await shop.edit('await reserve(item + " (new)")', "await reserve(item)")
        assert await shop.runs("retry", run_id) == (0, f"{run_id} is ready\n")
        done = await shop.ask(retry(buying("lamp"), first))
        assert done["content"][0]["text"] == "reserved lamp, paid lamp"
        assert shop.ledger == ["reserve lamp", "pay lamp"]


async def test_an_edited_workflow_goes_on_with_the_new_code_when_a_person_accepts_it(tmp_path: Path) -> None:
    async with asyncio.timeout(LIMIT), open_shop(tmp_path) as shop:
        first, _, run_id = await _stuck(shop)
        assert (await shop.runs("retry", run_id, "--accept-drift"))[0] == 0
        done = await shop.ask(retry(buying("lamp"), first))
        assert done["content"][0]["text"] == "reserved lamp (new), paid lamp"
        assert shop.ledger == ["reserve lamp", "reserve lamp (new)", "pay lamp"]


async def test_a_replayed_state_gives_the_stored_result_and_an_expired_one_starts_nothing(tmp_path: Path) -> None:
    async with asyncio.timeout(LIMIT), open_shop(tmp_path, MILEPOST_STORE_KEEP_RUNS="2s") as shop:
        first = await shop.ask(buying("lamp"))
        final = retry(buying("lamp"), first, sure=True)
        done = await shop.ask(final)
        assert (await shop.ask(final))["content"] == done["content"]
        while True:
            response = await shop.raw.modern(final, ASKABLE)
            if response.status_code != 200:
                break
            await asyncio.sleep(0.2)
        assert response.status_code == 400
        assert whole(response)["error"]["message"] == "Invalid or expired requestState"
        assert shop.ledger == ["reserve lamp", "pay lamp"]
        assert (await shop.runs("list", "open", "--json"))[1].strip() == "[]"


def _limit_files(shop: Shop, size: int) -> None:
    assert shop.server.process is not None
    resource.prlimit(shop.server.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


async def test_a_full_store_says_so_and_goes_on_where_it_was_when_there_is_room_again(tmp_path: Path) -> None:
    """No file of the server may grow: what SQLite meets is a write that is refused, as on a full disk."""
    async with asyncio.timeout(LIMIT), open_shop(tmp_path, MILEPOST_STORE_RETRY_PAUSE="0.2s") as shop:
        first = await shop.ask(buying("lamp"))
        _limit_files(shop, (tmp_path / "milepost.db-wal").stat().st_size)
        refused = await shop.raw.modern(retry(buying("lamp"), first, sure=True), ASKABLE)
        assert refused.status_code == 503, refused.text
        assert "retry-after" in refused.headers
        assert "can't store" in whole(refused)["error"]["message"]
        base = shop.server.url.removesuffix("/mcp")
        async with httpx2.AsyncClient() as http:
            unready = await http.get(f"{base}/readyz")
            assert unready.status_code == 503
            assert unready.json()["status"]
            assert (await http.get(f"{base}/healthz")).status_code == 200
        assert shop.ledger == ["reserve lamp"]
        _limit_files(shop, resource.RLIM_INFINITY)
        await shop.server._ready(shop.server.process)
        done = await shop.ask(retry(buying("lamp"), first, sure=True))
        assert done["content"][0]["text"] == "reserved lamp, paid lamp"
        assert shop.ledger == ["reserve lamp", "pay lamp"]
