"""What a remote says of itself: name, capabilities, instructions; remembered, for when it is away at start.

A host asks for it once, at start, and believes it for good: one that is told "no tools" never asks for any. So while
the remote is away, the host gets what was last seen, and where nothing was ever seen, tools, prompts and resources that
may change: it is told to look again as soon as the remote is there.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import structlog
from mcp_types import (
    Implementation,
    PromptsCapability,
    ResourcesCapability,
    ServerCapabilities,
    ToolsCapability,
)
from pydantic import BaseModel, ValidationError

from milepost.client import Client

log = structlog.get_logger("milepost")

_TASKS = "io.modelcontextprotocol/tasks"
"""An extension that changes what a call's result is. The client here doesn't declare it, so it is not passed on."""


class Seen(BaseModel):
    """A remote's identity, as its hosts are told it."""

    info: Implementation
    capabilities: ServerCapabilities
    instructions: str | None = None
    by_hand: bool = False
    """It is Milepost, and has a way of its own to be answered by hosts that can't be asked."""

    @classmethod
    def nothing(cls, url: str) -> Seen:
        """Of a remote that was never there."""
        may_come = ServerCapabilities(
            tools=ToolsCapability(list_changed=True),
            prompts=PromptsCapability(list_changed=True),
            resources=ResourcesCapability(list_changed=True),
        )
        return cls(info=Implementation(name=urlsplit(url).netloc, version=""), capabilities=may_come)

    @classmethod
    def of(cls, client: Client, url: str) -> Seen:
        """Of one that is there. What only makes sense between the remote and its own client is left out."""
        told = client.server_capabilities
        extensions = {name: value for name, value in (told.extensions or {}).items() if name != _TASKS}
        return cls(
            info=client.server_info or cls.nothing(url).info,
            capabilities=told.model_copy(update={"tasks": None, "extensions": extensions or None}),
            instructions=client.instructions,
        )


def remembered(path: Path | None) -> Seen | None:
    """What was last seen; None where nothing was, or where it can't be read."""
    if path is None:
        return None
    try:
        return Seen.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def remember(path: Path | None, seen: Seen) -> None:
    """Keep it, whole or not at all: other proxies of this remote read the same file."""
    if path is None or remembered(path) == seen:
        return
    try:
        handle, name = tempfile.mkstemp(dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(seen.model_dump_json(by_alias=True, exclude_none=True))
            Path(name).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as exc:
        log.warning("what the remote is could not be remembered", error=exc.strerror)
