"""`milepost`: serve a server, look at its lanes, look after its runs, see the demo.

Every fault that a user can mend is one sentence on stderr and exit code 2; a traceback means that we have a bug.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Coroutine, Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console

from milepost import logs, operate, showing
from milepost.core.errors import CallerError, ConfigurationError, StoreError
from milepost.running import run
from milepost.settings import Settings, given

app = App(
    name="milepost",
    help="Durable workflows for MCP servers.",
    version=metadata.version("milepost"),
    result_action="return_value",
    exit_on_error=False,
    print_error=False,
)
CALL_CODES = (
    "Exit code: 0 the result is on stdout; 1 the tool or its server said no; 2 nothing was done; "
    "3 it waits for a person; 4 what came of it is not known; 130 interrupted."
)
"""Of `call` and `resume`; docs/call.md says more."""
runs = App(name="runs", help="Look after runs, straight on the store: no server is needed, and a running one notices.")
app.command(runs)
stores = App(name="store", help="Look after a store: no server is needed, and running ones notice.")
app.command(stores)
# By name: each is imported only when it is used.
for _command in ("migrate", "check", "sweep", "copy"):
    stores.command(f"milepost.storekeeping:{_command}", name=_command)
app.command("milepost.commands:serve", name="serve", help="Serve an MCP server, unchanged, with durable workflows.")
app.command("milepost.commands:lanes", name="lanes", help="List how each tool is served, and what won't last.")
app.command("milepost.connect.command:connect", name="connect", help="Be, for a host here, the server at a URL.")
for _command, _where, _about in (
    ("call", "commands", "Call a tool: questions, stages, Ctrl-C and all."),
    ("resume", "resuming", "Go on with a call that was left waiting."),
):
    app.command(f"milepost.calling.{_where}:{_command}", name=_command, help=_about, help_epilogue=CALL_CODES)
app.command("milepost.demo.story:main", name="demo", help="Watch a tool lose its server, and go on.")

StoreUrl = Annotated[str | None, Parameter(name="--store", help="Default: sqlite:///milepost.db")]
Config = Annotated[Path | None, Parameter(name="--config", help="Default: milepost.toml, if there is one.")]
RunId = Annotated[str, Parameter(help="The run's id, or enough of its beginning or end.")]
AsJson = Annotated[bool, Parameter(name="--json", negative=(), help="For scripts.")]


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script: exits with 0, or with 2 after one sentence on what to mend."""
    try:
        code = app(arguments)
    except CycloptsError as exc:
        _fail(" ".join(str(exc).split()))
    except (ConfigurationError, StoreError, CallerError) as exc:
        _fail(str(exc))
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(text: str) -> None:
    sys.stderr.write(f"milepost: {text}\n")
    sys.exit(2)


# --- runs ----------------------------------------------------------------------------------------


@runs.command(name="list")
def list_runs(
    states: Annotated[tuple[str, ...], Parameter(name="--state", help="waiting, stuck, ..., open or final.")] = (),
    *,
    tool: str | None = None,
    limit: int = 50,
    as_json: AsJson = False,
    store: StoreUrl = None,
    config: Config = None,
) -> None:
    """List runs, newest first."""

    async def work(settings: Settings) -> None:
        async with operate.at_store(settings) as opened:
            found = await operate.listed(opened, states=states, tool=tool, limit=limit)
            held = await operate.waiting_for(opened, found)
        lines = [showing.run_line(each, held.get(each.id)) for each in found]
        _show(lines if as_json else showing.runs_table(found, held))

    _at(work, store, config)


@runs.command
def show(run_id: RunId, *, as_json: AsJson = False, store: StoreUrl = None, config: Config = None) -> None:
    """Show one run: its questions, its journal, its outcome."""

    async def work(settings: Settings) -> None:
        async with operate.at_store(settings) as opened:
            loaded = await operate.found(opened, run_id)
            held = (await operate.waiting_for(opened, [loaded.run])).get(loaded.run.id)
        _show(showing.run_whole(loaded, held) if as_json else showing.run_page(loaded, held))

    _at(work, store, config)


@runs.command
def answer(
    run_id: RunId,
    *fields: Annotated[str, Parameter(help="name=value for each field of the form.")],
    question: Annotated[int | None, Parameter(help="Needed where several are open.")] = None,
    decline: Annotated[bool, Parameter(negative=())] = False,
    cancel: Annotated[bool, Parameter(negative=(), help="Close the question without an answer.")] = False,
    result: Annotated[str | None, Parameter(name="--json", help="The whole result, for sampling and roots.")] = None,
    store: StoreUrl = None,
    config: Config = None,
) -> None:
    """Answer an open question of a run in its person's place."""
    action = "decline" if decline else "cancel" if cancel else "accept"
    given = operate.Given(action, _fields(fields), _json_object(result))

    async def work(settings: Settings) -> None:
        async with operate.at_store(settings) as opened:
            answered, verdict = await operate.answer(opened, run_id, question, given)
        _say(f"question {answered.id} of {answered.run_id}: {verdict}")

    _at(work, store, config)


@runs.command(name="cancel")
def cancel_run(run_id: RunId, *, store: StoreUrl = None, config: Config = None) -> None:
    """Cancel a run; it may clean up first."""

    async def work(settings: Settings) -> None:
        async with operate.at_store(settings) as opened:
            done = await operate.cancel(opened, run_id)
        _say(f"{done.id} is {done.state}{' and will be cancelled' if done.cancel and done.state == 'running' else ''}")

    _at(work, store, config)


@runs.command
def retry(
    run_id: RunId,
    *,
    accept_drift: Annotated[
        bool, Parameter(negative=(), help="Go on although the code no longer fits the journal.")
    ] = False,
    store: StoreUrl = None,
    config: Config = None,
) -> None:
    """Let a run that is stuck or parked go on."""

    async def work(settings: Settings) -> None:
        async with operate.at_store(settings) as opened:
            done, fits = await operate.retry(opened, run_id, accept_drift=accept_drift)
        if not fits:
            raise CallerError(f"{done.id} is {done.state}: only a run that is stuck or parked can be retried")
        _say(f"{done.id} is {done.state}")

    _at(work, store, config)


# --- the store -----------------------------------------------------------------------------------


@stores.command
def give(
    tool: Annotated[str | None, Parameter(help="'*' stands for every tool that isn't given by itself.")] = None,
    *shares: Annotated[str, Parameter(help="RELEASE, or RELEASE=WEIGHT for several.")],
    nobody: Annotated[
        bool, Parameter(negative=(), help="To no release: any replica that accepts the version.")
    ] = False,
    as_json: AsJson = False,
    store: StoreUrl = None,
    config: Config = None,
) -> None:
    """Say which release new runs of a tool go to. Without a release: show it, and which replicas there are."""
    if nobody and (shares or tool is None):
        raise ConfigurationError("--nobody wants a tool, and no release")

    async def work(settings: Settings) -> None:
        async with operate.at_store(settings) as opened:
            absent: list[str] = []
            if tool is not None and (shares or nobody):
                absent = await operate.give(opened, tool, {} if nobody else _weights(shares))
            found = await operate.releases(opened)
        _show(showing.releases_whole(*found) if as_json else showing.releases_page(*found))
        for release in () if as_json else absent:
            _say(f"no replica of release {release} serves {tool}: until one does, nothing is given to it")

    _at(work, store, config)


def _weights(shares: Sequence[str]) -> dict[str, float]:
    weights: dict[str, float] = {}
    for share in shares:
        release, equals, weight = share.rpartition("=")
        try:
            weights[release if equals else share] = float(weight) if equals else 1.0
        except ValueError:
            raise ConfigurationError(f"{share!r} is not of the form RELEASE=WEIGHT") from None
    return weights


def _at(work: Any, store: str | None, config: Path | None) -> None:
    settings = Settings.read(config, store=given(url=store))
    logs.configure(settings.log)
    job: Coroutine[Any, Any, None] = work(settings)
    run(job)


def _fields(pairs: Sequence[str]) -> dict[str, str]:
    for pair in pairs:
        if "=" not in pair:
            raise ConfigurationError(f"{pair!r} is not of the form name=value")
    return dict(pair.split("=", 1) for pair in pairs)


def _json_object(text: str | None) -> dict[str, Any] | None:
    if text is None:
        return None
    try:
        value = json.loads(text)
    except ValueError as exc:
        raise ConfigurationError(f"--json is not valid JSON: {exc}") from None
    if not isinstance(value, dict):
        raise ConfigurationError("--json must be an object")
    return value


def _show(thing: Any) -> None:
    if isinstance(thing, dict | list):
        print(json.dumps(thing, indent=2, ensure_ascii=False))  # noqa: T201  a command's output
    else:
        Console(width=None if sys.stdout.isatty() else 200).print(thing)


def _say(text: str) -> None:
    print(text)  # noqa: T201  a command's output
