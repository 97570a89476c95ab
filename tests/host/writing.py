"""What a target is made of: its files, and what milepost.toml says of a tool."""

from __future__ import annotations

from pathlib import Path

SERVER = "from mcp.server import MCPServer\nmcp = MCPServer('travel')\n"


STATEFUL = {"lane": "stateful", "replay": "safe"}


def write(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
