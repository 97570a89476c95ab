"""Milepost makes an MCP server's multi-step tools durable.

Write a tool as always, put `@workflow` under the SDK's decorator and `@step` on what has effects:

    @mcp.tool()
    @workflow(stages=["searching_data", "calling_tools"])
    async def change_itinerary(pnr: str, ctx: Context) -> Receipt: ...

and serve it with `milepost serve server.py:mcp`. See docs/write-a-workflow.md.
"""

from milepost.engine.verbs import current_run, current_step, key, now, stage, step, uuid, workflow

__all__ = ["current_run", "current_step", "key", "now", "stage", "step", "uuid", "workflow"]
