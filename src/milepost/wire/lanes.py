"""How the tools of a server are served, for people: a table, Markdown for the team's docs, JSON for scripts."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict

from rich.console import Console, ConsoleRenderable, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from milepost.wire.target import Hosted, ToolLane

_COLUMNS = ("tool", "lane", "why", "asks", "stages", "limits")
_STYLES: Mapping[str, str] = {"stateful": "green", "hot": "yellow", "stateless": "dim"}


def as_json(hosted: Hosted) -> str:
    """`{"server": name, "tools": [{"tool", "lane", "why", "asks", "stages", "limits", "warnings"}]}`."""
    body = {"server": hosted.name, "tools": [asdict(lane) for lane in hosted.tools.values()]}
    return json.dumps(body, indent=2, ensure_ascii=False)


def as_markdown(hosted: Hosted) -> str:
    """A table, and the warnings as a list under it."""
    lines = [f"# Tools of {hosted.name}", "", _line(_COLUMNS), _line("---" for _ in _COLUMNS)]
    lines += [_line(_cell(text) for text in _row(lane)) for lane in hosted.tools.values()]
    warned = _warnings(hosted.tools.values())
    if warned:
        lines += ["", "## Warnings", "", *(f"- `{tool}`: {warning}" for tool, warning in warned)]
    return "\n".join(lines)


def as_table(hosted: Hosted) -> ConsoleRenderable:
    """For a terminal."""
    table = Table(title=f"Tools of {escape(hosted.name)}", title_justify="left", header_style="bold")
    for name in _COLUMNS:
        table.add_column(name, overflow="fold")
    for lane in hosted.tools.values():
        tool, kind, *rest = _row(lane)
        table.add_row(escape(tool), Text(kind, _STYLES[kind]), *(escape(text) for text in rest))
    if not hosted.tools:
        table.caption = "The server has no tools that can be listed before it runs."
    warned = [
        Text.assemble(("! ", "yellow"), (tool, "bold"), f": {warning}")
        for tool, warning in _warnings(hosted.tools.values())
    ]
    return Group(table, *warned)


def as_text(hosted: Hosted, width: int | None = None) -> str:
    """The table as plain text, where there is no terminal."""
    console = Console(width=width or 160, color_system=None, record=True, file=io.StringIO())
    console.print(as_table(hosted))
    return console.export_text().rstrip()


FORMATS: Mapping[str, Callable[[Hosted], str]] = {"table": as_text, "json": as_json, "markdown": as_markdown}


def _row(lane: ToolLane) -> tuple[str, ...]:
    stages = " > ".join(lane.stages)
    return (lane.tool, lane.lane, lane.why, ", ".join(lane.asks), stages, "; ".join(lane.limits))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ") or "-"


def _warnings(lanes: Iterable[ToolLane]) -> list[tuple[str, str]]:
    return [(lane.tool, warning) for lane in lanes for warning in lane.warnings]
