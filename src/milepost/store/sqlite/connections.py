"""Sessions, streams and replicas inside a transaction: who is connected to what, and whether they live.

A stream belongs to a live connection while its `replica` is set and that replica lives: its lock is held,
and its heartbeat is fresh. A held lock with a stale heartbeat (a stopped process) is in doubt.
"""

from __future__ import annotations

from milepost.core.errors import UnknownRun
from milepost.core.records import Delivery, Replica, Session, Stream
from milepost.core.versions import Shares
from milepost.store import rows
from milepost.store.sqlite.locks import Holder
from milepost.store.sqlite.queries import query
from milepost.store.sqlite.tx import Tx

_STREAM, _BY_REQUEST, _INSERT = query("stream"), query("stream_by_request"), query("insert_stream")
_TAKE_UP, _DETACH, _DETACH_REPLICA = query("take_up_stream"), query("detach_stream"), query("detach_replica")
_KNOWN_REPLICAS, _TAKE_BACK, _GIVE = query("known_replicas"), query("take_back"), query("give")
_CONNECTIONS, _REPLICAS, _DELIVER = query("connections"), query("replicas"), query("deliver")
_HOLD = query("hold_by_id")
_SESSION_KNOWN, _SESSIONS_OPEN = query("session_known"), query("sessions_open")
_INSERT_SESSION, _UPDATE_SESSION, _END_SESSION = query("insert_session"), query("update_session"), query("end_session")
_SEQ_COLUMN = rows.RUN_WIDTH


# --- streams ------------------------------------------------------------------------------------


def open_stream(tx: Tx, stream: Stream) -> Stream:
    """See `WireStore.open_stream`. Raises UnknownRun."""
    known = tx.row(_STREAM, (stream.id,))
    if known is not None:
        tx.rows(_TAKE_UP, (stream.replica, stream.id))
        return rows.stream_of(tx.rows(_STREAM, (stream.id,))[0])
    same_request = by_request(tx, stream)
    if same_request is not None:
        return same_request
    run = tx.row(_HOLD, (stream.run_id,))
    if run is None:
        raise UnknownRun(f"there is no run {stream.run_id}")
    return insert(tx, stream, run[_SEQ_COLUMN])


def insert(tx: Tx, stream: Stream, run: int) -> Stream:
    """Insert a new stream of the run with that row number."""
    values = rows.stream_row(stream, run, at=tx.wall)
    tx.rows(_INSERT, values)
    return Stream(
        stream.id, stream.run_id, stream.request_id, stream.session, stream.progress_token, stream.owner,
        stream.replica, stream.attached, values[-1],
    )  # fmt: skip


def by_request(tx: Tx, stream: Stream) -> Stream | None:
    """The stream of the same request of the same session, if there is one."""
    if stream.session is None:
        return None
    row = tx.row(_BY_REQUEST, (stream.session, rows.id_text(stream.request_id)))
    return rows.stream_of(row) if row is not None else None


def close_stream(tx: Tx, stream_id: str, delivery: Delivery | None) -> None:
    """See `WireStore.close_stream`."""
    row = tx.row(_DETACH, (tx.wall, stream_id))
    if row is not None and delivery is not None:
        tx.rows(_DELIVER, {"run": row[0], "delivery": delivery.value, "wall": tx.wall})


def detach_replica(tx: Tx, replica: str, at: float) -> None:
    """All streams of a replica lost their connections at that time."""
    tx.rows(_DETACH_REPLICA, (at, replica))


def liveness(tx: Tx, run: int, *, since: float) -> tuple[bool, bool, float]:
    """(live, doubtful, orphaned_for) of a run, by its streams; `since` counts where it never had one."""
    last, live, doubtful = since, False, False
    beats = None
    for replica, detached_at in tx.rows(_CONNECTIONS, (run,)):
        if replica is None:
            last = max(last, detached_at or since)
            continue
        beats = {row[0]: row for row in tx.rows(_REPLICAS)} if beats is None else beats
        holder = tx.locks.holder(replica)
        if holder is Holder.HERE or (holder is not Holder.GONE and _fresh(tx, beats.get(replica))):
            live = True
        elif holder is Holder.ALIVE:
            doubtful = True
        else:
            last = max(last, beats[replica][1] if replica in beats else since)
    return live, doubtful, 0.0 if live or doubtful else max(0.0, tx.wall - last)


def replicas(tx: Tx) -> list[Replica]:
    """See `Store.replicas`."""
    found = []
    for *shown, beat_until, boot_id in tx.rows(_KNOWN_REPLICAS):
        holder = tx.locks.holder(shown[0])
        if holder is not Holder.GONE:
            fresh = boot_id == tx.boot_id and beat_until >= tx.boot
            found.append(rows.replica_of(shown, alive=fresh or holder is Holder.HERE))
    return found


def give(tx: Tx, tool: str, shares: Shares) -> None:
    """See `Store.give`."""
    tx.rows(_TAKE_BACK, (tool,))
    tx.many(_GIVE, [(tool, release, weight) for release, weight in shares.items()])


def _fresh(tx: Tx, replica: rows.Row | None) -> bool:
    return replica is not None and replica[3] == tx.boot_id and replica[2] >= tx.boot


# --- sessions -----------------------------------------------------------------------------------


def save_session(tx: Tx, session: Session, cap: int) -> bool:
    """See `WireStore.save_session`. Saving is a sign of life: it is seen now."""
    text = (session.version, rows.body_text(session.client_params), rows.principal_text(session.owner))
    rest = (session.initialized, session.log_level, rows.encode(session.subscriptions), session.ended)
    if tx.row(_SESSION_KNOWN, (session.id,)) is not None:
        tx.rows(_UPDATE_SESSION, (*text, tx.wall, *rest, session.id))
        return True
    since = tx.wall - tx.settings.retention.session_idle
    count = tx.row(_SESSIONS_OPEN, {"since": since, "cap": cap})
    if count is not None and count[0] >= cap:
        return False
    tx.rows(_INSERT_SESSION, (session.id, *text, session.created_at or tx.wall, tx.wall, *rest))
    return True


def end_session(tx: Tx, session_id: str) -> None:
    """See `WireStore.end_session`."""
    tx.rows(_END_SESSION, (session_id,))
