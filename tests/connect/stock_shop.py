"""A stock server of the official SDK that has one of everything, over HTTP. Arguments: its port, its ledger's file."""

from __future__ import annotations

import asyncio
import sys
import warnings
from pathlib import Path
from typing import Any

import mcp_types as types
import uvicorn
from mcp import MCPError
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ResourceUpdated, ToolsListChanged

warnings.simplefilter("ignore")
Context = ServerRequestContext[Any, Any]

FORM = {"type": "object", "properties": {"day": {"type": "integer", "minimum": 1}}, "required": ["day"]}
OBJECT = {"type": "object"}
MODERN = "2026-07-28"


def tool(name: str, **more: Any) -> types.Tool:
    return types.Tool(name=name, input_schema=OBJECT, **more)


FIRST = [
    tool(
        "echo",
        title="Echo",
        description="Says what it was told.",
        annotations=types.ToolAnnotations(read_only_hint=True, idempotent_hint=True),
        output_schema={"type": "object", "properties": {"said": {}, "meta": {}}, "required": ["said"]},
        _meta={"example.org/colour": "blue"},
        icons=[types.Icon(src="https://example.org/icon.png", mime_type="image/png")],
    ),
    tool("count"),
    tool("chatter"),
]
SECOND = [
    tool("refuse"),
    tool("fail"),
    tool("forever"),
    tool("change"),
    tool("ask"),
    tool("draft"),
    tool("where"),
    tool("headers"),
]


class AllChanges(Server[Any]):
    def create_initialization_options(self, *_: Any, **__: Any) -> InitializationOptions:
        return super().create_initialization_options(NotificationOptions(True, True, True))


class Shop:
    """The handlers. What was done stands in the ledger, one word a line."""

    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger
        self.bus = InMemorySubscriptionBus()
        self._watching: dict[str, Any] = {}

    def wrote(self, word: str) -> None:
        with self._ledger.open("a") as ledger:
            ledger.write(word + "\n")

    async def list_tools(self, ctx: Context, params: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        if params is not None and params.cursor == "second":
            return types.ListToolsResult(tools=SECOND)
        return types.ListToolsResult(tools=FIRST, next_cursor="second", _meta={"example.org/page": 1}, ttl_ms=5)

    async def call(self, ctx: Context, params: types.CallToolRequestParams) -> Any:
        return await getattr(self, f"_{params.name}")(ctx, params)

    async def _echo(self, ctx: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        meta = {k: v for k, v in (ctx.meta or {}).items() if not k.startswith("io.modelcontextprotocol/")}
        said: dict[str, Any] = {"said": params.arguments, "meta": meta}
        return types.CallToolResult(
            content=[types.TextContent(type="text", text="echo", annotations=types.Annotations(priority=0.5))],
            structured_content=said,
            _meta={"example.org/seal": "wax"},
        )

    async def _count(self, ctx: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        for n in (1, 2, 3):
            await ctx.session.report_progress(n, 3, f"step {n}")
            await asyncio.sleep(0.02)  # else a reader sees the last one only
        return text("counted")

    async def _chatter(self, ctx: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        for level in ("debug", "info", "error"):
            await ctx.session.send_log_message(level, {"at": level}, "shop", ctx.request_id)
        return text("said")

    async def _refuse(self, ctx: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        raise MCPError(4711, "not on a Sunday", {"open": ["Monday"]})

    async def _fail(self, ctx: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        return types.CallToolResult(content=text("it broke").content, is_error=True)

    async def _forever(self, ctx: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        self.wrote("begun")
        try:
            await asyncio.Event().wait()
        finally:
            self.wrote("cancelled")
        return text("never")

    async def _change(self, ctx: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        """A tool came, and a resource has changed."""
        if ctx.protocol_version == MODERN:
            await self.bus.publish(ToolsListChanged())
            await self.bus.publish(ResourceUpdated("shop://stock"))
            return text("changed")
        await ctx.session.send_tool_list_changed()
        for uri in self._watching:
            await ctx.session.send_resource_updated(uri)
        return text("changed")

    async def _ask(self, ctx: Context, params: types.CallToolRequestParams) -> Any:
        if ctx.protocol_version != MODERN:
            answer = await ctx.session.elicit_form("Which day?", FORM, ctx.request_id)
            return self._asked(answer.action, answer.content)
        given = (params.input_responses or {}).get("day")
        if given is None:
            asked = types.ElicitRequest(
                params=types.ElicitRequestFormParams(message="Which day?", requested_schema=FORM)
            )
            return types.InputRequiredResult(input_requests={"day": asked}, request_state="asked")
        assert params.request_state == "asked"
        assert isinstance(given, types.ElicitResult)
        return self._asked(given.action, given.content)

    def _asked(self, action: str, content: Any) -> types.CallToolResult:
        self.wrote(f"{action} {content}")
        return text(f"{action} {content}")

    async def _draft(self, ctx: Context, params: types.CallToolRequestParams) -> Any:
        message = types.SamplingMessage(role="user", content=types.TextContent(type="text", text="Write"))
        if ctx.protocol_version != MODERN:
            drafted = await ctx.session.create_message([message], max_tokens=5, related_request_id=ctx.request_id)
            return types.CallToolResult(content=[drafted.content])  # type: ignore[list-item]
        given: Any = (params.input_responses or {}).get("letter")
        if given is None:
            asked = types.CreateMessageRequest(
                params=types.CreateMessageRequestParams(messages=[message], max_tokens=5)
            )
            return types.InputRequiredResult(input_requests={"letter": asked}, request_state="s")
        return types.CallToolResult(content=[given.content])

    async def _headers(self, ctx: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        return types.CallToolResult(content=[], structured_content=dict(ctx.request.headers))

    async def _where(self, ctx: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        roots = await ctx.session.list_roots()
        return text(str(roots.roots[0].uri))

    # --- the rest ----------------------------------------------------------------------------------

    async def list_prompts(self, ctx: Context, params: Any) -> types.ListPromptsResult:
        return types.ListPromptsResult(
            prompts=[types.Prompt(name="greet", arguments=[types.PromptArgument(name="who", required=True)])]
        )

    async def get_prompt(self, ctx: Context, params: types.GetPromptRequestParams) -> Any:
        if params.name == "asking" and ctx.protocol_version == MODERN:
            given: Any = (params.input_responses or {}).get("day")
            if given is None:
                asked = types.ElicitRequest(
                    params=types.ElicitRequestFormParams(message="Which day?", requested_schema=FORM)
                )
                return types.InputRequiredResult(input_requests={"day": asked}, request_state="p")
            return said(f"day {given.content['day']}")
        if params.name != "greet":
            raise MCPError(types.INVALID_PARAMS, f"no prompt {params.name}")
        return said(f"Hello {(params.arguments or {})['who']}")

    async def list_resources(self, ctx: Context, params: Any) -> types.ListResourcesResult:
        return types.ListResourcesResult(resources=[types.Resource(uri="shop://stock", name="stock", size=3)])

    async def list_templates(self, ctx: Context, params: Any) -> types.ListResourceTemplatesResult:
        template = types.ResourceTemplate(uri_template="shop://shelf/{n}", name="shelf")
        return types.ListResourceTemplatesResult(resource_templates=[template])

    async def read_resource(self, ctx: Context, params: types.ReadResourceRequestParams) -> types.ReadResourceResult:
        if params.uri != "shop://stock":
            raise MCPError(types.INVALID_PARAMS, "no such resource", {"uri": params.uri})
        contents = [
            types.TextResourceContents(uri=params.uri, text="three", mime_type="text/plain"),
            types.BlobResourceContents(uri=params.uri, blob="AAEC"),
        ]
        return types.ReadResourceResult(contents=contents)

    async def subscribe(self, ctx: Context, params: types.SubscribeRequestParams) -> types.EmptyResult:
        self._watching[params.uri] = True
        self.wrote(f"subscribed {params.uri}")
        return types.EmptyResult()

    async def unsubscribe(self, ctx: Context, params: types.UnsubscribeRequestParams) -> types.EmptyResult:
        self._watching.pop(params.uri, None)
        self.wrote(f"unsubscribed {params.uri}")
        return types.EmptyResult()

    async def complete(self, ctx: Context, params: types.CompleteRequestParams) -> types.CompleteResult:
        values = [params.argument.value + "nn", params.argument.value + "dy"]
        return types.CompleteResult(completion=types.Completion(values=values, total=2, has_more=False))

    async def set_level(self, ctx: Context, params: types.SetLevelRequestParams) -> types.EmptyResult:
        self.wrote(f"level {params.level}")
        return types.EmptyResult()

    async def strange(self, ctx: Context, params: types.RequestParams) -> dict[str, Any]:
        return {"strange": (ctx.params or {}).get("thing"), "fruit": ["fig"]}

    async def roots_changed(self, ctx: Context, params: Any) -> None:
        self.wrote("roots changed")


def text(words: str) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(type="text", text=words)])


def said(words: str) -> types.GetPromptResult:
    return types.GetPromptResult(
        messages=[types.PromptMessage(role="user", content=types.TextContent(type="text", text=words))]
    )


def a_shop(ledger: Path) -> AllChanges:
    shop = Shop(ledger)
    server = AllChanges(
        "shop",
        version="7.1",
        title="The shop",
        instructions="Knock first.",
        website_url="https://example.org/shop",
        on_list_tools=shop.list_tools,
        on_call_tool=shop.call,
        on_list_prompts=shop.list_prompts,
        on_get_prompt=shop.get_prompt,
        on_list_resources=shop.list_resources,
        on_list_resource_templates=shop.list_templates,
        on_read_resource=shop.read_resource,
        on_subscribe_resource=shop.subscribe,
        on_unsubscribe_resource=shop.unsubscribe,
        on_subscriptions_listen=ListenHandler(shop.bus),
        on_completion=shop.complete,
        on_set_logging_level=shop.set_level,
        on_roots_list_changed=shop.roots_changed,
    )
    server.add_request_handler("shop/strange", types.RequestParams, shop.strange)
    return server


if __name__ == "__main__":
    port, ledger = sys.argv[1:]
    uvicorn.run(a_shop(Path(ledger)).streamable_http_app(), host="127.0.0.1", port=int(port), log_level="warning")
