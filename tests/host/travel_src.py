"""The text of a small server that tests write to files, so that it is imported as any TARGET is."""

TRAVEL = """
from pydantic import BaseModel
from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from milepost import stage, step, workflow

mcp = MCPServer("travel")


class Wish(BaseModel):
    day: str
    seats: int = 1
    window: bool = False


@step
async def book(day: str, seats: int) -> str:
    return f"booked {seats} on {day}"


@mcp.tool()
@workflow(stages=["asking", "booking"])
async def plan(pnr: str, ctx: Context) -> str:
    async with stage("asking"):
        wish = await ctx.elicit("When do you want to fly?", Wish)
    if wish.action != "accept":
        return wish.action
    async with stage("booking"):
        return await book(wish.data.day, wish.data.seats)


@mcp.tool()
@workflow
async def letter(ctx: Context) -> str:
    from mcp_types import SamplingMessage, TextContent
    message = SamplingMessage(role="user", content=TextContent(type="text", text="Write"))
    return (await ctx.session.create_message([message], max_tokens=5)).content.text


@mcp.tool()
async def echo(text: str) -> str:
    return text
"""

FAST = """
from fastmcp import Context, FastMCP

mcp = FastMCP("unchanged")


async def hold_seat(day: str) -> str:
    return f"held {day}"


@mcp.tool
async def trip(ctx: Context) -> str:
    reply = await ctx.elicit("When?", str)
    held = await hold_seat(reply.data)
    again = await ctx.elicit("Sure?", bool)
    return f"{held} {again.data}"
"""

FAST_TOML = """
[tools.trip]
lane = "stateful"
replay = "safe"
steps = ["fast_srv:hold_seat"]
"""
