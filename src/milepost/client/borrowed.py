"""The names of the SDK's client that nobody promised to us, each with why; a test resolves them, so that a new release
of the SDK fails one test that says what moved.
"""

from __future__ import annotations

from typing import Final

BORROWED: Final = {
    "_connect": "set in place of the SDK's HTTP transport: `Client` takes streams, and no Dispatcher",
    "_session": "adopts what a new session's `initialize` says; the public `session` raises before it is there",
    "_drive_input_required": "overridden: the SDK's loop keeps no answers, and has no seam",
    "_relist_tool": "reads a tool's declaration page by page; the public `list_tools` reads one page",
}
"""Names of `mcp.Client`."""
