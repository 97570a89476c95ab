"""Put a form to the person at the terminal, field by field. In an application this is a dialog or a chat message."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

import anyio.to_thread


async def ask(message: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The content of an accepted answer. `schema`: the form's, as MCP has it (`requestedSchema`)."""
    print(f"? {message}", flush=True)
    return {name: await _field(name, field) for name, field in schema.get("properties", {}).items()}


async def _field(name: str, field: Mapping[str, Any]) -> Any:
    print(f"  {field.get('title', name)}:", flush=True)
    typed = (await anyio.to_thread.run_sync(sys.stdin.readline)).strip()
    return typed if field.get("type", "string") == "string" else json.loads(typed)
