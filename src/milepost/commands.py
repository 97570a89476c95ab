"""The commands that need the whole of Milepost: `serve` and `lanes`.

They stand apart so that `milepost runs` starts in a third of the time: `cli.py` names them, and imports them when used.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console

from milepost import logs
from milepost.app import Milepost
from milepost.engine.verbs import step, wrap_function
from milepost.running import run
from milepost.serving import serve_http, serve_stdio
from milepost.settings import Settings, given
from milepost.wire import lanes as wire_lanes
from milepost.wire.declared import declared_tools
from milepost.wire.target import host as look_at
from milepost.wire.target import load, wrap_steps

Target = Annotated[str, Parameter(help="module:object or path/file.py:object: an SDK MCPServer or a FastMCP server.")]
StoreUrl = Annotated[str | None, Parameter(name="--store", help="Default: sqlite:///milepost.db")]
Config = Annotated[Path | None, Parameter(name="--config", help="Default: milepost.toml, if there is one.")]


def serve(  # noqa: PLR0913  each parameter is a flag
    target: Target,
    *,
    store: StoreUrl = None,
    host: Annotated[str | None, Parameter(help="Default: 127.0.0.1")] = None,
    port: Annotated[int | None, Parameter(help="Default: 8000; 0 takes a free one.")] = None,
    release: Annotated[str | None, Parameter(help="A label for this build.")] = None,
    single_user: Annotated[bool, Parameter(negative=(), help="All callers are the one local user.")] = False,
    stdio: Annotated[bool, Parameter(negative=(), help="Serve on stdin and stdout.")] = False,
    config: Config = None,
    log: Annotated[Literal["json", "console"] | None, Parameter(help="Default: console on a terminal.")] = None,
) -> None:
    """Serve an MCP server, unchanged, with durable workflows."""
    settings = Settings.read(
        config,
        store=given(url=store),
        http=given(host=host, port=port),
        log=given(format=log),
        release=release,
        single_user=single_user or None,
    )
    scrubber = logs.configure(settings.log)
    hosted = Milepost(target, settings=settings, scrubber=scrubber)
    logs.configure(settings.log, scrubber=scrubber)  # again: the import may have given loggers handlers of their own
    run(serve_stdio(hosted) if stdio else serve_http(hosted, _announce))


def _announce(url: str) -> None:
    sys.stderr.write(f"milepost: serving {url}\n")
    sys.stderr.flush()


def lanes(
    target: Target,
    *,
    format: Annotated[Literal["table", "json", "markdown"], Parameter()] = "table",  # noqa: A002  the flag's name
    config: Config = None,
) -> None:
    """List every tool with its lane, why, what it asks, its stages and limits; warn of what won't last."""
    declared = declared_tools(Settings.read(config).tools)
    wrap_steps(declared, step)
    server = load(target)
    hosted = run(look_at(server, declared, wrap=wrap_function))
    if format == "table" and sys.stdout.isatty():
        Console().print(wire_lanes.as_table(hosted))
    else:
        print(wire_lanes.FORMATS[format](hosted))  # noqa: T201  a command's output
