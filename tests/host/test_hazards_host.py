"""Hazards of the hosted SDKs that Milepost can't mend, and therefore warns of before a server ships."""

from __future__ import annotations

from fastmcp import Context, FastMCP

from milepost import workflow
from milepost.wire.target import host


async def test_hazard_p2_18_state_that_fastmcp_keeps_in_memory_is_warned_of() -> None:
    mcp = FastMCP("keeps")

    @mcp.tool
    @workflow
    async def count(ctx: Context) -> str:
        await ctx.set_state("n", 1)
        return "counted"

    (warning,) = (await host(mcp)).tools["count"].warnings
    assert "ctx.set_state() is done again by each attempt, in the memory of one process" in warning


def test_hazard_p2_18_fastmcps_context_has_no_sampling_or_roots_to_ask_with() -> None:
    """A limit of FastMCP 4.1, stated in docs/reliability.md: when this fails, the docs may promise more."""
    assert not hasattr(Context, "sample")
    assert not hasattr(Context, "list_roots")
