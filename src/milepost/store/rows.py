"""Rows to records and back. The only place that knows how a record is laid out in a row."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import fields
from functools import lru_cache
from hashlib import sha256
from typing import Any

from milepost.core.attempts import Claimant
from milepost.core.records import (
    CallContext,
    Delivery,
    Entry,
    EntryKind,
    Event,
    EventKind,
    JSONObject,
    Lane,
    NewRun,
    Outcome,
    Principal,
    Question,
    QuestionState,
    Replica,
    Reply,
    Run,
    Session,
    Stream,
)
from milepost.core.states import RunState

Row = Sequence[Any]

RUN_WIDTH = 34
"""How many columns of `run_columns` make a `Run`, in the order of its fields."""

_CALLERS = 1024
"""Principals whose texts are remembered; each is some hundred bytes."""

encode = json.JSONEncoder(separators=(",", ":")).encode
"""Compact and ASCII only: a lone surrogate, which JSON may carry and UTF-8 may not, stays an escape."""

decode = json.JSONDecoder().decode

_CALL_FIELDS = frozenset(field.name for field in fields(CallContext))
"""A newer release may have stored more; what this one doesn't know it leaves alone."""

_STATES = {state.value: state for state in RunState}
_LANES = {lane.value: lane for lane in Lane}
_DELIVERIES: dict[str | None, Delivery | None] = {None: None, **{d.value: d for d in Delivery}}
_ENTRY_KINDS = {kind.value: kind for kind in EntryKind}
_EVENT_KINDS = {kind.value: kind for kind in EventKind}
_QUESTION_STATES = {state.value: state for state in QuestionState}


HOT = "hot"
"""The kind of runs that any replica may claim."""


def run_kind(new: NewRun) -> str:
    """What a replica must accept to run it. Any replica may claim a hot run (to say that it is lost)."""
    return HOT if new.lane is Lane.HOT else _kind(new.tool, new.version, new.given_to)


def kinds_of(claimant: Claimant) -> set[str]:
    """All kinds of run that a claimant may run."""
    releases = {"", claimant.release}
    return {HOT} | {_kind(tool, version, release) for tool, version in claimant.accepts for release in releases}


def _kind(tool: str, version: int, given_to: str) -> str:
    return f"{version} {tool} @{given_to}" if given_to else f"{version} {tool}"


@lru_cache(_CALLERS)
def owner_text(principal: Principal) -> str:
    """What owns a run, for look-ups. Kept for the callers of late, for they come again and again."""
    return encode(principal.owner)


@lru_cache(_CALLERS)
def principal_text(principal: Principal) -> str:
    return encode([*principal.owner, list(principal.scopes), principal.person])


@lru_cache(_CALLERS)
def principal_of(text: str) -> Principal:
    issuer, subject, client, scopes, person = decode(text)
    return Principal(issuer, subject, client, tuple(scopes), person)


def call_text(call: CallContext) -> str:
    return encode(
        {
            "tool": call.tool,
            "arguments": call.arguments,
            "request_id": call.request_id,
            "wire_version": call.wire_version,
            "client_info": call.client_info,
            "capabilities": call.capabilities,
            "principal": [*call.principal.owner, list(call.principal.scopes), call.principal.person],
            "session": call.session,
            "log_level": call.log_level,
            "trace_id": call.trace_id,
            "meta": call.meta,
        }
    )


def call_of(text: str) -> CallContext:
    known = decode(text)
    issuer, subject, client, scopes, person = known["principal"]
    known["principal"] = Principal(issuer, subject, client, tuple(scopes), person)
    return CallContext(**{name: value for name, value in known.items() if name in _CALL_FIELDS})


def run_of(row: Row) -> Run:
    """A `Run` from a row that begins with `run_columns`."""
    values = list(row[:RUN_WIDTH])
    values[3] = _LANES[values[3]]
    values[4] = _STATES[values[4]]
    values[5] = call_of(values[5])
    values[25] = bool(values[25])
    values[29] = _DELIVERIES[values[29]]
    values[31] = bool(values[31])
    return Run(*values)


def new_run_row(new: NewRun, *, at: float, entry_format: int) -> list[Any]:
    """The first columns of `insert_run`, up to `format`; the claim's follow."""
    state, principal = RunState.READY.value, owner_text(new.call.principal)
    return [
        new.id, new.tool, new.version, new.lane.value, state, call_text(new.call), new.call_key, new.scope, new.salt,
        new.release, at, at, new.rival, new.given_to, new.call_id, run_kind(new), principal, entry_format,
    ]  # fmt: skip


def entry_of(row: Row) -> Entry:
    n, kind, name, digest, key, occurrence, value, size, at, epoch = row
    return Entry(n, _ENTRY_KINDS[kind], name, digest, key, occurrence, value, size, at, epoch)


def question_of(row: Row) -> Question:
    run, n, method, params, digest, key, occurrence, state, stage, asked_at, expires_at, reply, by, via, at = row
    return Question(
        run, n, method, decode(params), digest, key, occurrence, _QUESTION_STATES[state], stage, asked_at, expires_at,
        reply_of(reply) if reply is not None else None, principal_of(by) if by is not None else None, via, at,
    )  # fmt: skip


def reply_text(reply: Reply) -> str:
    return encode({"result": reply.result, "error": reply.error})


def reply_of(text: str) -> Reply:
    return Reply(**decode(text))


def canonical(value: object) -> str:
    """JSON with sorted keys: equal texts mean equal values, and True is not 1."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def digest_of(reply: str) -> str:
    """Equal for equal replies, whatever the order of their keys; True is not 1."""
    return sha256(canonical(decode(reply)).encode()).hexdigest()


def event_of(run_id: str, row: Row) -> Event:
    n, kind, body, at = row
    return Event(run_id, n, _EVENT_KINDS[kind], decode(body), at)


def outcome_text(outcome: Outcome | None) -> str:
    result, error = (outcome.result, outcome.error) if outcome is not None else (None, None)
    return encode({"result": result, "error": error})


def body_text(body: JSONObject) -> str:
    return encode(body)


def session_of(row: Row) -> Session:
    n, version, params, owner, created_at, seen_at, initialized, level, subscriptions, ended = row
    return Session(
        n, version, decode(params), principal_of(owner), created_at, seen_at, bool(initialized), level,
        tuple(decode(subscriptions)), bool(ended),
    )  # fmt: skip


def accepts_text(accepts: Collection[tuple[str, int]]) -> str:
    return encode(sorted(accepts))


def replica_of(row: Row, *, alive: bool) -> Replica:
    """A `Replica` from a row of (id, release, accepts, beat_at)."""
    name, release, accepts, beat_at = row
    return Replica(name, release, frozenset((tool, version) for tool, version in decode(accepts)), beat_at, alive)


def stream_of(row: Row) -> Stream:
    n, run, request_id, session, token, owner, replica, attached, opened_at, detached_at = row
    return Stream(
        n, run, decode(request_id), session, decode(token) if token is not None else None, principal_of(owner),
        replica, bool(attached), opened_at, detached_at,
    )  # fmt: skip


def storable(text: str) -> str:
    """The text with anything that UTF-8 can't say (a lone surrogate, from a caller's JSON) made a question mark."""
    return text.encode("utf-8", "replace").decode("utf-8")


def id_text(value: str | int) -> str:
    """A JSON-RPC id or a progress token as JSON: 7 and "7" are two."""
    return str(value) if type(value) is int else encode(value)


def stream_row(stream: Stream, run: int, *, at: float) -> list[Any]:
    token = id_text(stream.progress_token) if stream.progress_token is not None else None
    return [
        stream.id, run, id_text(stream.request_id), stream.session, token, principal_text(stream.owner),
        stream.replica, stream.attached, stream.opened_at or at,
    ]  # fmt: skip
