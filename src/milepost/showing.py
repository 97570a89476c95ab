"""Runs for people on a terminal, and for scripts as JSON. Only the shape is here, no decision."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import ConsoleRenderable, Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from milepost.core.attempts import Loaded
from milepost.core.durations import spoken
from milepost.core.records import Entry, Question, Replica, Run
from milepost.core.versions import Given

_STYLES: Mapping[str, str] = {
    "running": "green",
    "waiting": "cyan",
    "stuck": "bold red",
    "failed": "red",
    "completed": "dim",
    "cancelled": "dim",
    "expired": "dim",
}


def moment(at: float | None) -> str:
    """UTC, to the second."""
    return "" if not at else datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def run_line(run: Run, waits_for: str | None = None) -> dict[str, Any]:
    """One run in a list, as JSON. Arguments and results are not in it. `waits_for`: why no replica goes on with it."""
    return {
        "run_id": run.id,
        "tool": run.tool,
        "state": str(run.state),
        "stage": run.stage,
        "created_at": moment(run.created_at),
        "updated_at": moment(run.updated_at),
        "version": run.version,
        "release": run.release,
        "attempts": run.epoch,
        "crashes": run.crashes,
        "working_seconds": round(run.working, 3),
        "reason": run.reason,
        "given_to": run.given_to,
        "waits_for": waits_for,
        "trace_id": run.call.trace_id,
    }


def run_whole(loaded: Loaded, waits_for: str | None = None) -> dict[str, Any]:
    """One run with its questions and its journal, as JSON."""
    outcome = json.loads(loaded.run.outcome) if loaded.run.outcome else None
    return {
        **run_line(loaded.run, waits_for),
        "arguments": dict(loaded.run.call.arguments),
        "questions": [_question(q) for q in loaded.questions],
        "journal": [_entry(e) for e in loaded.entries],
        "outcome": outcome,
    }


def _question(question: Question) -> dict[str, Any]:
    return {
        "question": question.id,
        "method": question.method,
        "message": question.params.get("message"),
        "schema": question.params.get("requestedSchema"),
        "state": str(question.state),
        "asked_at": moment(question.asked_at),
        "expires_at": moment(question.expires_at),
        "via": question.via,
    }


def _entry(entry: Entry) -> dict[str, Any]:
    return {"n": entry.n, "kind": str(entry.kind), "name": entry.name, "attempt": entry.epoch, "at": moment(entry.at)}


def runs_table(runs: Sequence[Run], waiting_for: Mapping[str, str]) -> ConsoleRenderable:
    if not runs:
        return Text("No runs.")
    table = Table(header_style="bold")
    for name in ("run", "tool", "state", "stage", "updated", "attempts", "reason"):
        table.add_column(name, overflow="fold", no_wrap=name == "run")
    for run in runs:
        state = Text(run.state, _STYLES.get(run.state, ""))
        reason = waiting_for.get(run.id) or run.reason or ""
        cells = [run.stage or "", moment(run.updated_at), str(run.epoch), reason]
        table.add_row(run.id, escape(run.tool), state, *(escape(cell) for cell in cells))
    return table


def run_page(loaded: Loaded, waits_for: str | None = None) -> ConsoleRenderable:
    run, reason = loaded.run, waits_for or loaded.run.reason
    head = Table.grid(padding=(0, 2))
    facts = {
        "run": run.id,
        "tool": f"{run.tool} (version {run.version}{', release ' + run.release if run.release else ''})",
        "state": f"{run.state}{': ' + reason if reason else ''}",
        "given to": f"release {run.given_to}" if run.given_to else "",
        "stage": run.stage or "",
        "called": moment(run.created_at),
        "changed": moment(run.updated_at),
        "worked": f"{spoken(round(run.working, 1))} in {run.epoch} attempts, {run.crashes} crashes",
        "arguments": json.dumps(dict(run.call.arguments), ensure_ascii=False),
    }
    for name, value in facts.items():
        if value:
            head.add_row(Text(name, "bold"), Text(value))
    return Group(head, *_questions(loaded.questions), *_journal(loaded.entries), *_outcome(run))


def _questions(questions: Sequence[Question]) -> list[ConsoleRenderable]:
    lines: list[ConsoleRenderable] = []
    for question in questions:
        text = str(question.params.get("message") or question.method)
        lines.append(Text(f"\nQuestion {question.id} ({question.state}): {text}", "cyan"))
        if question.state == "open":
            fields = question.params.get("requestedSchema", {}).get("properties", {})
            lines += [Text(f"    {name}: {_kind(schema)}") for name, schema in fields.items()]
            lines.append(Text(f"    until {moment(question.expires_at)}", "dim"))
    return lines


def _kind(schema: Mapping[str, Any]) -> str:
    choices = schema.get("enum") or [option.get("const") for option in schema.get("oneOf", ())]
    return " | ".join(map(str, choices)) if choices else str(schema.get("type", "any"))


def _journal(entries: Sequence[Entry]) -> list[ConsoleRenderable]:
    if not entries:
        return []
    table = Table(header_style="bold", title="Journal", title_justify="left")
    for name in ("n", "kind", "name", "attempt", "at"):
        table.add_column(name)
    for entry in entries:
        table.add_row(str(entry.n), str(entry.kind), escape(entry.name), str(entry.epoch), moment(entry.at))
    return [Text(""), table]


def _outcome(run: Run) -> list[ConsoleRenderable]:
    if not run.outcome:
        return []
    return [Text("\nOutcome", "bold"), Text(json.dumps(json.loads(run.outcome), indent=2, ensure_ascii=False))]


# --- releases ------------------------------------------------------------------------------------


def releases_whole(given: Given, replicas: Sequence[Replica]) -> dict[str, Any]:
    """Which release new runs are given to, and the replicas, as JSON."""
    shares = {tool: dict(weights) for tool, weights in given.items()}
    return {"given": shares, "replicas": [_replica(one) for one in replicas]}


def _replica(replica: Replica) -> dict[str, Any]:
    return {
        "replica": replica.id,
        "release": replica.release,
        "alive": replica.alive,
        "heard_at": moment(replica.beat_at),
        "accepts": [f"{tool} {version}" for tool, version in sorted(replica.accepts)],
    }


def releases_page(given: Given, replicas: Sequence[Replica]) -> ConsoleRenderable:
    shares = Table(header_style="bold", title="New runs", title_justify="left")
    for name in ("tool", "release", "share"):
        shares.add_column(name)
    for tool, weights in given.items():
        for release, weight in weights.items():
            shares.add_row(escape(tool), escape(release), f"{100 * weight / sum(weights.values()):.3g} %")
    there = Table(header_style="bold", title="Replicas", title_justify="left")
    for name in ("replica", "release", "heard", "accepts"):
        there.add_column(name, overflow="fold")
    for one in map(_replica, replicas):
        heard = one["heard_at"] if one["alive"] else f"silent since {one['heard_at']}"
        there.add_row(one["replica"], escape(one["release"]), heard, escape(", ".join(one["accepts"])))
    nobody = Text("New runs go to any replica that accepts their version.")
    return Group(shares if given else nobody, there if replicas else Text("No replicas."))
