"""TARGET: finding its workflows, deciding lanes, and refusing at start what could never work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastmcp import Context as FastContext
from fastmcp import FastMCP
from fastmcp.server.auth import require_scopes
from mcp.server import MCPServer
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import Context
from mcp.server.request_state import RequestStateBoundary
from mcp_types import InputRequiredResult

from host.tools_src import Day, asks_by_helper, by_hand, by_resolver, full_of_traps, only_looks, plain, well_made
from host.writing import SERVER, STATEFUL, write
from milepost import now, step, workflow
from milepost import uuid as uuid_
from milepost.core.errors import ConfigurationError
from milepost.core.spec import WorkflowSpec
from milepost.engine.verbs import wrap_function
from milepost.wire import asks, sdk
from milepost.wire.declared import declared_tools
from milepost.wire.target import Hosted, host, load, share_request_state

# --- lanes ----------------------------------------------------------------------------------------


async def lanes(*functions: Any, toml: dict[str, Any] | None = None, wrap: Any = None) -> Hosted:
    mcp = MCPServer("travel")
    for fn in functions:
        mcp.add_tool(fn)
    return await host(mcp, declared_tools(toml or {}), wrap=wrap)


async def test_without_a_word_a_tool_is_stateless() -> None:
    hosted = await lanes(only_looks, plain)
    assert hosted.name == "travel"
    assert hosted.catalogue.specs == {}
    assert [(t.lane, t.why, t.asks) for t in hosted.tools.values()] == [("stateless", "asks nothing", ())] * 2


async def test_a_tool_that_asks_without_being_a_workflow_is_hot_and_warned_of() -> None:
    lane = (await lanes(asks_by_helper)).tools["asks_by_helper"]
    assert (lane.lane, lane.asks) == ("hot", ("elicitation",))
    assert "lost with it" in lane.warnings[0]


async def test_questions_are_found_in_the_authors_other_files_and_not_in_libraries(folder: Path) -> None:
    write(folder, "desk/__init__.py", "")
    write(folder, "desk/forms.py", "async def ask(ctx, text): return await ctx.elicit(text, dict)\n")
    write(folder, "desk/help.py", "from . import forms\nasync def day(ctx): return await forms.ask(ctx, 'When?')\n")
    write(
        folder,
        "desk/serve.py",
        "import anyio\nfrom mcp.server.mcpserver import Context\nfrom . import help\n"
        + SERVER
        + "@mcp.tool()\nasync def deep(ctx: Context) -> str:\n    return str(await help.day(ctx))\n"
        + "@mcp.tool()\nasync def rests() -> str:\n    await anyio.sleep(0)\n    return await rests()\n",
    )
    tools = (await host(load("desk.serve:mcp"))).tools
    assert (tools["deep"].lane, tools["deep"].asks) == ("hot", ("elicitation",))
    assert (tools["rests"].lane, tools["rests"].asks) == ("stateless", ())


async def test_the_sdks_own_rounds_stay_stateless() -> None:
    tools = (await lanes(by_resolver, by_hand)).tools
    assert {t.lane for t in tools.values()} == {"stateless"}
    assert tools["by_resolver"].asks == ("questions by Resolve",)
    assert tools["by_hand"].asks == ("input required (hand-made)",)


async def test_a_workflow_shows_its_stages_limits_and_questions() -> None:
    hosted = await lanes(well_made)
    lane = hosted.tools["well_made"]
    assert lane.lane == "stateful"
    assert lane.why == "@workflow"
    assert lane.asks == ("elicitation", "sampling", "roots")
    assert lane.stages == ("search", "book")
    assert lane.limits == ("run: timeout=5m", "search: timeout=20", "book: answer_within=24h")
    assert lane.warnings == ()
    assert hosted.catalogue.accepted() == {("well_made", 1)}


async def test_hazard_p2_8_what_would_break_on_replay_is_warned_of() -> None:
    mcp = FastMCP("traps")
    mcp.tool(full_of_traps)
    warnings = "\n".join((await host(mcp)).tools["full_of_traps"].warnings)
    for part in (
        "Even has validators",
        "wait_for() around a question never fires",
        "move_on_after() around a question never fires",
        "stamp in an argument of elicit()",
        "uuid.uuid4() in an argument of elicit_url()",
        "uuid.uuid4() in an argument of the step book()",
        "ctx.set_state()",
        "get_access_token() is empty",
        "get_http_headers() is empty",
        "ctx.headers is empty",
        "the stage 'unknown' is not among",
    ):
        assert part in warnings


async def test_toml_alone_makes_a_workflow_and_its_function_is_wrapped() -> None:
    wrapped: list[str] = []

    def wrap(fn: Any, spec: WorkflowSpec) -> Any:
        wrapped.append(f"{fn.__name__} {spec.version}")
        return fn

    table = {"lane": "stateful", "replay": "safe", "version": 3, "accepts": [2], "timeout": "5m", "stages": ["a"]}
    hosted = await lanes(asks_by_helper, toml={"asks_by_helper": table}, wrap=wrap)
    assert wrapped == ["asks_by_helper 3"]
    spec = hosted.catalogue.specs["asks_by_helper"]
    assert spec == WorkflowSpec(3, frozenset({2, 3}), ("a",), timeout=300.0)
    assert hosted.tools["asks_by_helper"].lane == "stateful"
    assert hosted.tools["asks_by_helper"].why == "milepost.toml"


async def test_a_server_is_hosted_again_after_its_tools_were_wrapped() -> None:
    mcp = MCPServer("again")
    mcp.add_tool(only_looks)
    toml = declared_tools({"only_looks": {"lane": "stateful", "replay": "safe"}})
    await host(mcp, toml, wrap=wrap_function)
    hosted = await host(mcp, toml, wrap=wrap_function)
    assert (hosted.tools["only_looks"].lane, hosted.tools["only_looks"].why) == ("stateful", "milepost.toml")


async def test_what_can_not_be_read_asks_nothing_that_is_known() -> None:
    class Asker:
        async def __call__(self, ctx: Context) -> str:
            return str(await ctx.elicit("When?", Day))

        async def method(self, ctx: Context) -> str:
            return str(await ctx.elicit("When?", Day))

    made = eval("lambda x: x")  # noqa: S307  a function without a source
    assert asks.read(made) == asks.Reading()
    assert asks.read(len) == asks.Reading()
    assert asks.read(Asker()) == asks.Reading()
    assert asks.is_async(Asker())
    assert asks.read(Asker().method).asks == ("elicitation",)
    assert asks.read(unresolvable) == asks.Reading(asks=("input required (hand-made)",))


async def unresolvable(a: "Nowhere") -> "InputRequiredResult":  # type: ignore[name-defined]  # noqa: F821, UP037
    raise NotImplementedError


async def test_real_steps_are_known_and_their_clock_is_no_hazard() -> None:
    assert asks.is_step(step(only_looks))
    assert not asks.is_step(workflow(only_looks))
    assert not asks.is_step(only_looks)

    @workflow
    async def steady(ctx: Context) -> str:
        moment = await now()
        await ctx.elicit(f"It is {moment}", Day)
        return str(await uuid_())

    mcp = MCPServer("steady")
    mcp.add_tool(steady)
    assert (await host(mcp)).tools["steady"].warnings == ()


async def test_hazard_a2_toml_without_replay_safe_is_served_hot_and_says_what_a_loss_means() -> None:
    hosted = await lanes(asks_by_helper, toml={"asks_by_helper": {"lane": "stateful"}})
    lane = hosted.tools["asks_by_helper"]
    assert lane.lane == "hot"
    assert "stuck" in lane.warnings[0]
    assert hosted.catalogue.specs["asks_by_helper"].replay_safe is False


async def test_toml_stateless_says_nothing_new() -> None:
    assert (await lanes(only_looks, toml={"only_looks": {"lane": "stateless"}})).catalogue.specs == {}


async def test_an_unchanged_fastmcp_tool_is_wrapped_where_it_lives_also_behind_a_mount() -> None:
    async def greet(name: str, ctx: FastContext) -> str:
        return f"hello {name} {type(ctx).__name__}"

    inner, outer = FastMCP("inner"), FastMCP("outer")
    inner.tool(greet)
    outer.tool(greet)
    outer.mount(inner, "sub")

    def wrap(fn: Any, _spec: WorkflowSpec) -> Any:
        import functools  # noqa: PLC0415

        @functools.wraps(fn)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            return "wrapped " + await fn(*args, **kwargs)

        return wrapper

    toml = declared_tools({"sub_greet": {"lane": "stateful", "replay": "safe"}})
    hosted = await host(outer, toml, wrap=wrap)
    assert hosted.tools["sub_greet"].lane == "stateful"
    assert hosted.tools["greet"].lane == "stateless"
    assert (await outer.call_tool("sub_greet", {"name": "x"})).content[0].text == "wrapped hello x Context"
    assert (await outer.call_tool("greet", {"name": "x"})).content[0].text == "hello x Context"


async def test_a_transformed_fastmcp_tool_is_found_behind_its_transformation() -> None:
    from fastmcp.tools import Tool  # noqa: PLC0415

    mcp = FastMCP("t")
    mcp.add_tool(Tool.from_tool(Tool.from_function(well_made_fast), name="renamed"))
    assert (await host(mcp)).tools["renamed"].asks == ("elicitation",)


async def well_made_fast(ctx: FastContext) -> str:
    return str(await ctx.elicit("When?", Day))


async def test_a_tool_that_only_the_authorized_see_is_seen_at_start() -> None:
    mcp = FastMCP("a")
    mcp.tool(auth=require_scopes("book"))(well_made_fast)
    assert "well_made_fast" in (await host(mcp)).tools


async def test_a_low_level_server_is_hosted_and_its_tools_are_taken_at_their_word() -> None:
    hosted = await host(Server("low"), declared_tools({"anything": {"lane": "stateful", "replay": "safe"}}))
    assert hosted.tools["anything"].lane == "stateful"
    assert hosted.bus is None


async def test_the_lifespan_of_both_sdks_is_entered_by_one_call() -> None:
    import contextlib  # noqa: PLC0415

    log: list[str] = []

    @contextlib.asynccontextmanager
    async def life(_server: object) -> Any:
        log.append("in")
        yield {"db": 1}
        log.append("out")

    for server in (MCPServer("a", lifespan=life), FastMCP("b", lifespan=life)):
        async with (await host(server)).lifespan() as state:
            assert state == {"db": 1}
    assert log == ["in", "out"] * 2


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("functions", "toml", "says"),
    [
        ([by_hand], {"by_hand": STATEFUL}, "returns InputRequiredResult and can't be a workflow"),
        ([plain], {"plain": STATEFUL}, "write `async def`"),
        (
            [only_looks],
            {"only_look": STATEFUL},
            "no tool 'only_look' (did you mean 'only_looks'?). Its tools: only_looks.",
        ),
        ([only_looks], {"only_looks": {**STATEFUL, "same_run_by": ["pmr"]}}, "did you mean 'pnr'?"),
        ([well_made], {"well_made": {"lane": "stateless"}}, "can't be made stateless"),
        ([well_made], {"well_made": STATEFUL}, "is a @workflow in its code already"),
        ([], {"x": 1}, "tools.x must be a table"),
        ([], {"x": {}}, "[tools.x] needs lane."),
        (
            [],
            {"x": {"lane": "durable"}},
            "[tools.x] lane: input should be 'stateless' or 'stateful' (it is 'durable').",
        ),
        ([], {"x": {"lane": "stateful", "replai": "safe"}}, "has no key 'replai' (did you mean 'replay'?)"),
        ([], {"x": {"lane": "stateful", "timeout": "soon"}}, "'soon' is not a duration"),
        ([], {"x": {"lane": "stateful", "timeout": -1}}, "greater than 0"),
        ([], {"x": {"lane": "stateful", "steps": ["book"]}}, "not of the form module:function"),
        ([], {"x": {"lane": "stateful", "version": 0}}, "greater than or equal to 1"),
    ],
)
async def test_what_can_not_be_served_as_declared_is_refused_at_start(
    functions: list[Any], toml: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        await lanes(*functions, toml=toml)
    assert says in str(caught.value)


# --- request state --------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [MCPServer, FastMCP])
async def test_hazard_p2_15_the_sdks_own_request_state_is_sealed_with_the_shared_keys(make: Any) -> None:
    hosted = await host(make("travel"))
    share_request_state(hosted, [b"k" * 32], 600.0)
    share_request_state(hosted, [b"k" * 32], 600.0)
    found = [m for m in hosted.server.middleware if isinstance(m, RequestStateBoundary)]
    assert len(found) == 1
    assert found[0]._security.ttl == 600.0


def test_the_web_app_of_the_sdk_has_the_custom_routes() -> None:
    async def hello(_request: Any) -> Any: ...

    for server in (MCPServer("a"), FastMCP("b")):
        server.custom_route("/hello", methods=["GET"])(hello)
        web = sdk.web_of(server, "/mcp")
        assert web is not None
        assert {getattr(route, "path", "") for route in web.routes} >= {"/mcp", "/hello"}
        assert len(sdk.custom_routes_of(server)) == 1
