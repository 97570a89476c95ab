"""What passes through the proxy: a stock server with one of everything behind it, each era on either side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import mcp_types as types
import pytest
from mcp import Client, MCPError
from mcp.types import ElicitResult
from pydantic import FileUrl

from connect.running import HOSTS, LIMIT, REMOTES, Stock, hosting, stock, through

pytestmark = [
    pytest.mark.timeout(120),
    pytest.mark.filterwarnings("ignore::mcp.shared.exceptions.MCPDeprecationWarning"),
]

MODERN = "2026-07-28"


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module", params=REMOTES)
def era(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
async def remote(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stock]:
    async with stock("stock_shop.py", tmp_path_factory.mktemp("rich")) as server:
        yield server


@pytest.fixture(scope="module")
async def proxy(remote: Stock, era: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """One proxy for all tests of an era: its hosts come and go."""
    async with hosting(tmp_path_factory.mktemp("proxy"), remote.url, era) as url:
        yield url


@pytest.fixture(params=HOSTS)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@asynccontextmanager
async def host(proxy: str, mode: str, **more: Any) -> AsyncIterator[Client]:
    with anyio.fail_after(LIMIT):
        async with Client(proxy, mode=mode if mode == "legacy" else "auto", cache=None, **more) as client:
            yield client


async def test_the_remote_introduces_itself(proxy: str, mode: str) -> None:
    async with host(proxy, mode) as client:
        assert client.server_info is not None
        assert (client.server_info.name, client.server_info.version) == ("shop", "7.1")
        assert client.server_info.title == "The shop"
        assert client.instructions == "Knock first."
        told = client.server_capabilities
        assert told.tools is not None
        assert told.tools.list_changed
        assert told.resources is not None
        assert told.resources.subscribe
        assert told.completions is not None
        assert told.logging is not None


async def test_a_tool_list_comes_page_by_page_with_all_it_says(proxy: str, mode: str) -> None:
    async with host(proxy, mode) as client:
        page = await client.list_tools()
        rest = await client.list_tools(cursor=page.next_cursor)
    assert page.next_cursor == "second"
    assert page.meta is not None
    assert page.meta["example.org/page"] == 1
    echo = page.tools[0]
    assert (echo.name, echo.title, echo.meta) == ("echo", "Echo", {"example.org/colour": "blue"})
    assert echo.annotations is not None
    assert echo.annotations.read_only_hint
    assert echo.icons is not None
    assert "ask" in [tool.name for tool in rest.tools]


async def test_a_host_that_can_be_asked_gets_output_schemas(proxy: str, mode: str) -> None:
    async with host(proxy, mode, elicitation_callback=three) as client:
        page = await client.list_tools()
    assert page.tools[0].output_schema is not None


async def test_arguments_and_meta_go_there_and_results_come_back(proxy: str, mode: str) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    meta: Any = {"traceparent": trace, "example.org/mine": [1]}
    async with host(proxy, mode) as client:
        result = await client.call_tool("echo", {"deep": {"a": [None, True]}}, meta=meta)
    assert result.structured_content is not None
    assert result.structured_content["said"] == {"deep": {"a": [None, True]}}
    there = result.structured_content["meta"]
    assert there["example.org/mine"] == [1]
    assert there["traceparent"].split("-")[1] == trace.split("-")[1]
    assert result.meta is not None
    assert result.meta["example.org/seal"] == "wax"
    assert isinstance(result.content[0], types.TextContent)
    assert result.content[0].annotations is not None


async def test_progress_reaches_the_host_that_wants_it(proxy: str, mode: str) -> None:
    heard: list[tuple[float, float | None, str | None]] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        heard.append((done, total, message))

    async with host(proxy, mode) as client:
        await client.call_tool("count", {}, progress_callback=progress)
    assert heard[-1] == (3, 3, "step 3")
    assert [done for done, *_ in heard] == sorted({done for done, *_ in heard})


async def test_log_messages_come_from_the_level_that_the_host_wants(proxy: str, mode: str) -> None:
    heard: list[str] = []

    async def logged(params: types.LoggingMessageNotificationParams) -> None:
        heard.append(params.level)

    async with host(proxy, mode, logging_callback=logged, log_level="info") as client:
        if mode == "legacy":
            await client.set_logging_level("info")
        await client.call_tool("chatter", {})
        with anyio.fail_after(LIMIT):
            while len(heard) < 2:
                await asyncio.sleep(0.01)
    assert heard == ["info", "error"]


async def test_errors_pass_with_code_and_data(proxy: str, mode: str) -> None:
    async with host(proxy, mode) as client:
        with pytest.raises(MCPError) as caught:
            await client.call_tool("refuse", {})
        failed = await client.call_tool("fail", {})
    assert (caught.value.code, caught.value.message) == (4711, "not on a Sunday")
    assert caught.value.data == {"open": ["Monday"]}
    assert failed.is_error


async def test_what_the_host_cancels_is_cancelled_there(proxy: str, remote: Stock, mode: str) -> None:
    before = len(remote.wrote)
    async with host(proxy, mode) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(client.call_tool, "forever", {})
            await _until_written(remote, before, "begun")
            group.cancel_scope.cancel()
        await _until_written(remote, before, "cancelled")
        assert (await client.call_tool("fail", {})).is_error  # the answer to what was cancelled has passed by then


async def _until_written(remote: Stock, before: int, word: str) -> None:
    while word not in remote.wrote[before:]:
        await asyncio.sleep(0.02)


async def three(context: Any, params: Any) -> ElicitResult:
    assert params.message == "Which day?"
    return ElicitResult(action="accept", content={"day": 3})


async def test_a_question_reaches_the_person_and_the_answer_the_remote(proxy: str, mode: str) -> None:
    async with host(proxy, mode, elicitation_callback=three) as client:
        result = await client.call_tool("ask", {})
    assert isinstance(result.content[0], types.TextContent)
    assert result.content[0].text == "accept {'day': 3}"


async def test_two_hosts_that_are_asked_at_once_answer_their_own_questions(proxy: str, mode: str) -> None:
    answers: dict[int, str] = {}

    async def one(day: int) -> None:
        async def answer(context: Any, params: Any) -> ElicitResult:
            return ElicitResult(action="accept", content={"day": day})

        async with host(proxy, mode, elicitation_callback=answer) as client:
            result = await client.call_tool("ask", {})
        assert isinstance(result.content[0], types.TextContent)
        answers[day] = result.content[0].text

    async with anyio.create_task_group() as group:
        for day in range(1, 5):
            group.start_soon(one, day)
    assert answers == {day: f"accept {{'day': {day}}}" for day in range(1, 5)}


async def test_a_host_that_cannot_be_asked_answers_by_hand(proxy: str, mode: str) -> None:
    async with host(proxy, mode) as client:
        names = [tool.name for tool in (await client.list_tools(cursor="second")).tools]
        asked = await client.call_tool("ask", {})
        assert asked.structured_content is not None
        run_id, key = asked.structured_content["run_id"], asked.structured_content["questions"][0]["key"]
        result = await client.call_tool("continue_run", {"run_id": run_id, "answers": {key: {"day": 5}}})
    assert "continue_run" in names
    assert isinstance(result.content[0], types.TextContent)
    assert result.content[0].text == "accept {'day': 5}"


async def test_sampling_reaches_a_host_that_can_be_asked(proxy: str, mode: str) -> None:
    async def model(context: Any, params: Any) -> types.CreateMessageResult:
        return types.CreateMessageResult(
            role="assistant", content=types.TextContent(type="text", text="Dear"), model="m"
        )

    async with host(proxy, mode, sampling_callback=model, elicitation_callback=three) as client:
        result = await client.call_tool("draft", {})
    assert isinstance(result.content[0], types.TextContent)
    assert result.content[0].text == "Dear"


async def roots(context: Any) -> types.ListRootsResult:
    return types.ListRootsResult(roots=[types.Root(uri=FileUrl("file:///home/ann"))])


async def test_a_handshake_remote_learns_the_roots_of_its_host(proxy: str, remote: Stock, mode: str, era: str) -> None:
    if era == "modern":
        return  # that remote would have to ask in a round of its own
    before = len(remote.wrote)
    async with host(proxy, mode, list_roots_callback=roots, elicitation_callback=three) as client:
        result = await client.call_tool("where", {})
        if mode == "legacy":
            await client.send_roots_list_changed()
            await _until_written(remote, before, "roots changed")
    assert isinstance(result.content[0], types.TextContent)
    assert result.content[0].text == "file:///home/ann"


async def test_what_a_host_cannot_be_asked_fails_at_the_remote(proxy: str, mode: str) -> None:
    async with host(proxy, mode, elicitation_callback=three) as client:
        with pytest.raises(MCPError):
            await client.call_tool("draft", {})


async def test_an_answer_that_is_none_is_asked_for_again_or_refused(proxy: str, mode: str) -> None:
    days: list[Any] = ["soon", 9]

    async def answer(context: Any, params: Any) -> ElicitResult:
        return ElicitResult(action="accept", content={"day": days.pop(0)})

    async with host(proxy, mode, elicitation_callback=answer) as client:
        result = await client.call_tool("ask", {})
    assert isinstance(result.content[0], types.TextContent)
    assert result.content[0].text == "accept {'day': 9}"


async def test_prompts_resources_and_completions_pass(proxy: str, mode: str) -> None:
    async with host(proxy, mode) as client:
        assert [prompt.name for prompt in (await client.list_prompts()).prompts] == ["greet"]
        greeting = await client.get_prompt("greet", {"who": "Ann"})
        assert isinstance(greeting.messages[0].content, types.TextContent)
        assert greeting.messages[0].content.text == "Hello Ann"
        assert [str(one.uri) for one in (await client.list_resources()).resources] == ["shop://stock"]
        templates = (await client.list_resource_templates()).resource_templates
        assert [one.uri_template for one in templates] == ["shop://shelf/{n}"]
        contents = (await client.read_resource("shop://stock")).contents
        assert [type(one).__name__ for one in contents] == ["TextResourceContents", "BlobResourceContents"]
        ref = types.PromptReference(type="ref/prompt", name="greet")
        done = await client.complete(ref, {"name": "who", "value": "A"})
        assert done.completion.values == ["Ann", "Ady"]
        with pytest.raises(MCPError) as caught:
            await client.read_resource("shop://attic")
        assert (caught.value.message, caught.value.data) == ("no such resource", {"uri": "shop://attic"})


async def test_a_prompt_that_asks_is_answered(proxy: str, mode: str, era: str) -> None:
    if era == "handshake":
        return  # that remote has no prompt that asks
    async with host(proxy, mode, elicitation_callback=three) as client:
        result = await client.get_prompt("asking")
    assert isinstance(result.messages[0].content, types.TextContent)
    assert result.messages[0].content.text == "day 3"


async def test_a_method_that_nobody_knows_passes(proxy: str, mode: str) -> None:
    class Fruit(types.Result):
        strange: str
        fruit: list[str]

    request: Any = types.Request[dict[str, Any], str](method="shop/strange", params={"thing": "left"})
    async with host(proxy, mode) as client:
        result = await client.session.send_request(request, Fruit)
    assert (result.strange, result.fruit) == ("left", ["fig"])


async def test_changes_of_lists_and_resources_are_told(proxy: str, mode: str) -> None:
    heard: set[str] = set()

    async def message(told: Any) -> None:
        if isinstance(told, types.ServerNotification):
            heard.add(told.method)

    wanted = {"notifications/tools/list_changed", "notifications/resources/updated"}
    async with host(proxy, mode, message_handler=message) as client:
        if mode == "legacy":
            await client.list_tools()
            await client.subscribe_resource("shop://stock")
            await _until_told(client, heard, wanted)
            await client.unsubscribe_resource("shop://stock")
        else:
            async with client.listen(tools_list_changed=True, resource_subscriptions=["shop://stock"]):
                await _until_told(client, heard, wanted)


async def _until_told(client: Client, heard: set[str], wanted: set[str]) -> None:
    """Changes go to those who listen by then: over HTTP, a stream opens when it opens."""
    with anyio.fail_after(LIMIT):
        while not wanted <= heard:
            await client.call_tool("change", {})
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("host_mode", HOSTS)
@pytest.mark.parametrize("remote_era", REMOTES)
async def test_over_a_pipe_too(remote: Stock, host_mode: str, remote_era: str, tmp_path: Path) -> None:
    heard: list[float] = []

    async def progress(done: float, total: float | None, message: str | None) -> None:
        heard.append(done)

    options: dict[str, Any] = {"mode": "legacy" if host_mode == "legacy" else "auto", "elicitation_callback": three}
    with anyio.fail_after(LIMIT):
        async with through("stdio", tmp_path, remote.url, "--era", remote_era, **options) as client:
            assert client.server_info is not None
            assert client.server_info.name == "shop"
            assert client.protocol_version == ("2025-11-25" if host_mode == "legacy" else MODERN)
            result = await client.call_tool("ask", {}, progress_callback=progress)
            await client.call_tool("count", {}, progress_callback=progress)
    assert isinstance(result.content[0], types.TextContent)
    assert result.content[0].text == "accept {'day': 3}"
    assert heard[-1] == 3
