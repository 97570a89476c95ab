"""The server that the official conformance suite is run against.

The suite fixes the names of the tools, prompts and resources below and what each must do; the words are ours.
Every tool is in the stateless lane: the suite's bare answers (no `requestState`, answers to questions that were never
asked) are meant for tools that keep nothing.

Two rules keep it honest: it is an ordinary `MCPServer`, so the same object can be hosted by Milepost and by the
SDK's own transport (`run.py --stock`); and the forms offer exactly the choices that the suite's mock client picks from,
so that a host that checks answers against the schema finds them good.
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64decode
from typing import Annotated, Any, Literal

from material import DIALECT_SCHEMA, PICTURE, SOUND
from mcp import types as t
from mcp.server import MCPServer, ServerRequestContext
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.prompts.base import Prompt, UserMessage
from mcp.server.mcpserver.tools import Tool
from mcp.server.request_state import RequestStateSecurity
from mcp.shared.exceptions import MCPError
from pydantic import BaseModel, Field

STATE_KEY = b"a fixed key: this server guards nothing at all"
"""Sealing key of `requestState`. Fixed, so that two runs of the suite can be compared byte for byte."""

PAUSE = 0.05
"""Seconds between two notifications, so that each is a message of its own on the wire."""


def keeps_its_dialect() -> str:
    """Has an input schema with the whole vocabulary of JSON Schema 2020-12."""
    return "the schema is what counts here"


mcp = MCPServer(
    "milepost-conformance",
    version="1",
    instructions="Answers the official conformance suite, and nobody else.",
    request_state_security=RequestStateSecurity(keys=[STATE_KEY]),
    tools=[
        Tool.from_function(keeps_its_dialect, name="json_schema_2020_12_tool").model_copy(
            update={"parameters": DIALECT_SCHEMA}
        )
    ],
)


# --- content --------------------------------------------------------------------------------------


def text(words: str) -> t.TextContent:
    return t.TextContent(type="text", text=words)


def picture() -> t.ImageContent:
    return t.ImageContent(type="image", data=PICTURE, mime_type="image/png")


def embedded(uri: str, words: str, mime_type: str = "text/plain") -> t.EmbeddedResource:
    return t.EmbeddedResource(
        type="resource", resource=t.TextResourceContents(uri=uri, mime_type=mime_type, text=words)
    )


@mcp.tool()
def test_simple_text() -> str:
    """Returns one line of text."""
    return "One plain line of text."


@mcp.tool()
def test_image_content() -> list[t.ImageContent]:
    """Returns a picture."""
    return [picture()]


@mcp.tool()
def test_audio_content() -> list[t.AudioContent]:
    """Returns a sound."""
    return [t.AudioContent(type="audio", data=SOUND, mime_type="audio/wav")]


@mcp.tool()
def test_embedded_resource() -> list[t.EmbeddedResource]:
    """Returns a resource inside its result."""
    return [embedded("test://embedded-resource", "Carried inside the result.")]


@mcp.tool()
def test_multiple_content_types() -> list[t.TextContent | t.ImageContent | t.EmbeddedResource]:
    """Returns text, a picture and a resource together."""
    return [text("Three kinds in one result."), picture(), embedded("test://mixed", '{"kind": 3}', "application/json")]


@mcp.tool()
def test_error_handling() -> str:
    """Always fails."""
    raise RuntimeError("This tool fails on purpose.")


@mcp.tool()
def test_x_mcp_header(
    region: Annotated[
        str, Field(description="Repeated in the Mcp-Param-Region header.", json_schema_extra={"x-mcp-header": "Region"})
    ] = "anywhere",  # noqa: PT028  # a tool, not a test
) -> str:
    """Takes an argument that clients repeat as an HTTP header."""
    return f"The region is {region}."


# --- what a running call says ---------------------------------------------------------------------


async def log_three_lines(ctx: Context) -> None:
    for line in ("beginning", "in the middle of it", "done"):
        await ctx.info(line)
        await asyncio.sleep(PAUSE)


@mcp.tool()
async def test_tool_with_logging(ctx: Context) -> str:
    """Logs three lines while it works."""
    await log_three_lines(ctx)
    return "Three lines were logged."


@mcp.tool()
async def test_logging_tool(ctx: Context) -> str:
    """Logs three lines; a modern caller who named no log level must get none of them."""
    await log_three_lines(ctx)
    return "Three lines were logged, for those who asked for them."


@mcp.tool()
async def test_tool_with_progress(ctx: Context) -> str:
    """Reports its progress as 0, 50 and 100 of 100."""
    for done in (0, 50, 100):
        await ctx.report_progress(done, 100, f"{done} of 100")
        await asyncio.sleep(PAUSE)
    return "All of it is done."


@mcp.tool()
async def test_reconnection(ctx: Context) -> str:
    """Closes its own stream half-way; the caller fetches the rest with Last-Event-ID."""
    await ctx.info("before the stream closes")
    await ctx.close_sse_stream()
    await asyncio.sleep(0.2)
    await ctx.info("after the stream closed")
    return "The result, on the second connection."


# --- asking on a live connection (handshake era) --------------------------------------------------


class Contact(BaseModel):
    username: str = Field(description="What to call you")
    email: str = Field(description="Where to write to you")


class WithDefaults(BaseModel):
    name: str = Field(default="John Doe")
    age: int = Field(default=30)
    score: float = Field(default=95.5)
    status: Literal["active", "inactive", "pending"] = Field(default="active")
    verified: bool = Field(default=True)


def titled(*values: str) -> list[dict[str, str]]:
    return [{"const": value, "title": f"The {value}"} for value in values]


class EnumKinds(BaseModel):
    """One field for each way of writing a choice."""

    untitled_single: Literal["option1", "option2", "option3"] = Field(alias="untitledSingle")
    titled_single: str = Field(alias="titledSingle", json_schema_extra={"oneOf": titled("value1", "value2", "value3")})
    legacy_enum: str = Field(
        alias="legacyEnum",
        json_schema_extra={"enum": ["opt1", "opt2", "opt3"], "enumNames": ["The first", "The second", "The third"]},
    )
    untitled_multi: list[Literal["option1", "option2", "option3"]] = Field(alias="untitledMulti")
    titled_multi: list[str] = Field(
        alias="titledMulti", json_schema_extra={"items": {"anyOf": titled("value1", "value2", "value3")}}
    )


async def ask_for(form: type[BaseModel], message: str, ctx: Context) -> str:
    answer = await ctx.elicit(message, form)
    content = answer.data.model_dump_json(by_alias=True) if answer.action == "accept" else "{}"
    return f"action={answer.action}, content={content}"


@mcp.tool()
async def test_elicitation(message: str, ctx: Context) -> str:
    """Asks the user for a name and an address."""
    return f"User response: {await ask_for(Contact, message, ctx)}"


@mcp.tool()
async def test_elicitation_sep1034_defaults(ctx: Context) -> str:
    """Asks with a default in every field."""
    return f"Elicitation completed: {await ask_for(WithDefaults, 'Correct what is wrong.', ctx)}"


@mcp.tool()
async def test_elicitation_sep1330_enums(ctx: Context) -> str:
    """Asks for choices, written in every way that the protocol knows."""
    return f"Elicitation completed: {await ask_for(EnumKinds, 'Choose in each.', ctx)}"


@mcp.tool()
async def test_sampling(prompt: str, ctx: Context) -> str:
    """Has the client's model answer a prompt."""
    reply = await ctx.session.create_message(
        messages=[t.SamplingMessage(role="user", content=text(prompt))],
        max_tokens=100,
        related_request_id=ctx.request_id,
    )
    return f"LLM response: {words_of(reply)}"


def words_of(reply: object) -> str:
    """The text of a model's reply; a mark where it has none."""
    if isinstance(reply, t.CreateMessageResult) and isinstance(reply.content, t.TextContent):
        return reply.content.text
    return "(no text)"


# --- asking by result (modern era) ----------------------------------------------------------------


def form(message: str, **fields: str) -> t.ElicitRequest:
    """A question for the user; `fields` gives each required field's JSON type."""
    schema = {
        "type": "object",
        "properties": {name: {"type": kind} for name, kind in fields.items()},
        "required": list(fields),
    }
    return t.ElicitRequest(params=t.ElicitRequestFormParams(message=message, requested_schema=schema))


def sampling(prompt: str) -> t.CreateMessageRequest:
    return t.CreateMessageRequest(
        params=t.CreateMessageRequestParams(
            messages=[t.SamplingMessage(role="user", content=text(prompt))], max_tokens=100
        )
    )


def answer_to(key: str, ctx: Context) -> object | None:
    return (ctx.input_responses or {}).get(key)


def field_of(answer: object, field: str) -> str:
    """One field of an accepted form; a mark where the user didn't accept."""
    if isinstance(answer, t.ElicitResult) and answer.content:
        return str(answer.content.get(field))
    return "(nobody)"


def asking(state: str | None = None, /, **requests: t.InputRequest) -> t.InputRequiredResult:
    return t.InputRequiredResult(input_requests=requests, request_state=state)


@mcp.tool()
async def test_input_required_result_elicitation(ctx: Context) -> str | t.InputRequiredResult:
    """Asks for a name, then greets."""
    answer = answer_to("user_name", ctx)
    if answer is None:
        return asking(user_name=form("What is your name?", name="string"))
    return f"Hello, {field_of(answer, 'name')}!"


@mcp.tool()
async def test_input_required_result_sampling(ctx: Context) -> str | t.InputRequiredResult:
    """Has the client's model name a capital."""
    answer = answer_to("capital_question", ctx)
    if answer is None:
        return asking(capital_question=sampling("What is the capital of France?"))
    return f"The model says: {words_of(answer)}"


@mcp.tool()
async def test_input_required_result_list_roots(ctx: Context) -> str | t.InputRequiredResult:
    """Asks for the client's roots and counts them."""
    answer = answer_to("client_roots", ctx)
    if answer is None:
        return asking(client_roots=t.ListRootsRequest())
    count = len(answer.roots) if isinstance(answer, t.ListRootsResult) else 0
    return f"Roots: {count}."


@mcp.tool()
async def test_input_required_result_request_state(ctx: Context) -> str | t.InputRequiredResult:
    """Goes on only when its own state comes back."""
    if answer_to("confirm", ctx) is not None and ctx.request_state == "asked once":
        return "state-ok: it came back as it was sent."
    return asking("asked once", confirm=form("Shall I go on?", ok="boolean"))


@mcp.tool()
async def test_input_required_result_multiple_inputs(ctx: Context) -> str | t.InputRequiredResult:
    """Asks the user, the model and for the roots at once."""
    wanted: dict[str, t.InputRequest] = {
        "user_name": form("What is your name?", name="string"),
        "greeting": sampling("Generate a greeting"),
        "client_roots": t.ListRootsRequest(),
    }
    if wanted.keys() <= (ctx.input_responses or {}).keys():
        return "All three answers are here."
    return asking("three at once", **wanted)


@mcp.tool()
async def test_input_required_result_multi_round(ctx: Context) -> str | t.InputRequiredResult:
    """Asks for a name, and then, in a second round, for a colour."""
    known: dict[str, str] = json.loads(ctx.request_state or "{}")
    first, second = answer_to("step1", ctx), answer_to("step2", ctx)
    if known.get("name") and second is not None:
        return f"{known['name']} likes {field_of(second, 'color')}."
    if known.get("round") == "1" and first is not None:
        state = json.dumps({"round": "2", "name": field_of(first, "name")})
        return asking(state, step2=form("Step 2: which colour do you like best?", color="string"))
    return asking(json.dumps({"round": "1"}), step1=form("Step 1: what is your name?", name="string"))


@mcp.tool()
async def test_input_required_result_tampered_state(ctx: Context) -> str | t.InputRequiredResult:
    """Must never see a state that somebody changed: the sealing refuses it before."""
    if ctx.request_state is None:
        return asking("untouched", confirm=form("Shall I go on?", ok="boolean"))
    return f"The state is {ctx.request_state}."


@mcp.tool()
async def test_input_required_result_capabilities(ctx: Context) -> t.InputRequiredResult:
    """Asks only for what this caller said it can do."""
    can = ctx.client_capabilities or t.ClientCapabilities()
    requests: dict[str, t.InputRequest] = {}
    if can.sampling is not None:
        requests["line"] = sampling("Say hello.")
    if can.elicitation is not None:
        requests["user_name"] = form("What is your name?", name="string")
    return asking("as declared", **requests)


@mcp.tool()
async def test_streaming_elicitation(ctx: Context) -> str | t.InputRequiredResult:
    """Reports progress, then asks: the stream carries the question in its result only."""
    await ctx.report_progress(1, 2, "about to ask")
    if answer_to("user_name", ctx) is None:
        return asking(user_name=form("What is your name?", name="string"))
    return "Answered."


@mcp.tool()
async def test_missing_capability(ctx: Context) -> str:
    """Refuses callers that can't sample, with a protocol error."""
    can = ctx.client_capabilities
    if can is None or can.sampling is None:
        raise MCPError(
            code=t.MISSING_REQUIRED_CLIENT_CAPABILITY,
            message="This tool needs the client's sampling capability.",
            data={"requiredCapabilities": {"sampling": {}}},
        )
    return "The client can sample."


# --- lists that change ----------------------------------------------------------------------------


def passing_by() -> str:
    """Comes and goes."""
    return "gone in a moment"


@mcp.tool()
async def test_trigger_tool_change(ctx: Context) -> str:
    """Adds a tool, takes it away again, and tells the subscribers."""
    mcp.add_tool(passing_by)
    mcp.remove_tool("passing_by")
    await ctx.notify_tools_changed()
    return "The list of tools changed twice."


@mcp.tool()
async def test_trigger_prompt_change(ctx: Context) -> str:
    """Adds a prompt, takes it away again, and tells the subscribers."""
    mcp.add_prompt(Prompt.from_function(passing_by))
    mcp.remove_prompt("passing_by")
    await ctx.notify_prompts_changed()
    return "The list of prompts changed twice."


# --- resources ------------------------------------------------------------------------------------


@mcp.resource("test://static-text", mime_type="text/plain")
def static_text() -> str:
    """A text that never changes."""
    return "A text that never changes."


@mcp.resource("test://static-binary", mime_type="image/png")
def static_binary() -> bytes:
    """A picture that never changes."""
    return b64decode(PICTURE)


@mcp.resource("test://template/{id}/data", mime_type="application/json")
def templated(id: str) -> str:  # noqa: A002  # the suite's template names it so
    """One record for each id."""
    return json.dumps({"id": id, "record": f"number {id}"})


@mcp.resource("test://watched-resource", mime_type="text/plain")
def watched() -> str:
    """A text that clients may subscribe to."""
    return "Nothing has changed yet."


# --- prompts --------------------------------------------------------------------------------------


def said(content: t.TextContent | t.ImageContent | t.EmbeddedResource) -> UserMessage:
    return UserMessage(role="user", content=content)


@mcp.prompt()
def test_simple_prompt() -> list[UserMessage]:
    """A prompt without arguments."""
    return [said(text("Say something short."))]


@mcp.prompt()
def test_prompt_with_arguments(arg1: str, arg2: str) -> list[UserMessage]:
    """A prompt with two arguments."""
    return [said(text(f"Compare {arg1} with {arg2}."))]


@mcp.prompt()
def test_prompt_with_embedded_resource(resourceUri: str) -> list[UserMessage]:  # noqa: N803  # the suite's name
    """A prompt that carries a resource."""
    return [said(embedded(resourceUri, "Carried inside the prompt.")), said(text("Summarise the resource above."))]


@mcp.prompt()
def test_prompt_with_image() -> list[UserMessage]:
    """A prompt that carries a picture."""
    return [said(picture()), said(text("Describe the picture above."))]


@mcp.prompt()
async def test_input_required_result_prompt(ctx: Context) -> list[UserMessage] | t.InputRequiredResult:
    """A prompt that asks before it speaks."""
    answer = answer_to("user_context", ctx)
    if answer is None:
        return asking(user_context=form("What context should the prompt use?", context="string"))
    return [said(text(f"Keep this in mind: {field_of(answer, 'context')}."))]


# --- completion, subscriptions, log level ---------------------------------------------------------


@mcp.completion()
async def complete(
    ref: t.PromptReference | t.ResourceTemplateReference,
    argument: t.CompletionArgument,
    context: t.CompletionContext | None,
) -> t.Completion:
    """Completes any argument to one of three words."""
    values = [word for word in ("paris", "park", "party") if word.startswith(argument.value)]
    return t.Completion(values=values, total=len(values), has_more=False)


async def acknowledge(ctx: ServerRequestContext[Any, Any], params: Any) -> t.EmptyResult:
    return t.EmptyResult()


# `MCPServer` has no decorator for these three (handshake era only); the low-level server takes them.
for method, params in (
    ("resources/subscribe", t.SubscribeRequestParams),
    ("resources/unsubscribe", t.UnsubscribeRequestParams),
    ("logging/setLevel", t.SetLevelRequestParams),
):
    mcp._lowlevel_server.add_request_handler(method, params, acknowledge)
