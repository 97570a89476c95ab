"""Connections to one SQLite file: how they are opened, and what SQLite's errors mean to us.

The write-ahead log with `synchronous=FULL`: a commit that has returned survives a power cut. Automatic
checkpoints are off and memory mapping is off (HAZARDS B6); the writer checkpoints.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import apsw

from milepost.core.errors import ConfigurationError, StoreError, StoreUnavailable
from milepost.store.sqlite.queries import query

Connect = Callable[[], apsw.Connection]

_NETWORK = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "fuse.gcsfuse", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs"}
    | {"gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "smb", "smb2", "smb3", "smbfs"}
)
_MOUNTS = Path("/proc/self/mountinfo")
_UNAVAILABLE = (
    apsw.FullError,
    apsw.ReadOnlyError,
    apsw.IOError,
    apsw.CantOpenError,
    apsw.BusyError,
    apsw.LockedError,
    apsw.CorruptError,
    apsw.NotADBError,
    apsw.ProtocolError,
    apsw.PermissionsError,
    apsw.NoMemError,
    apsw.NoLFSError,
)
_LOOK_AGAIN = 0.001
_ADVICE: dict[type[apsw.Error], str] = {
    apsw.FullError: "the disk (or its quota) is full: free some space",
    apsw.ReadOnlyError: "the file or its directory is read-only: make both writable for this user",
    apsw.CantOpenError: "the file can't be opened: check that its directory exists and is writable",
    apsw.BusyError: "another process has held the write lock for too long: see which one has the file open",
    apsw.NotADBError: "the file is not a SQLite database: give another path",
    apsw.CorruptError: "the file is damaged: restore it from a backup",
}

_WRITE_AHEAD, _SETTINGS, _READ_ONLY = query("write_ahead"), query("settings"), query("read_only")


def _write_ahead(connection: apsw.Connection, busy: float) -> None:
    """Switch to the write-ahead log. SQLite says at once that it is busy where several do so, whatever the handler."""
    ends = time.monotonic() + busy
    while True:
        try:
            connection.execute(_WRITE_AHEAD).fetchall()
        except apsw.BusyError:
            if time.monotonic() > ends:
                raise
            time.sleep(_LOOK_AGAIN)
        else:
            return


def connect(path: Path, *, busy: float, kind: type[apsw.Connection] = apsw.Connection) -> apsw.Connection:
    """A connection for writing. `busy` in seconds; `kind` lets tests break it. Raises StoreUnavailable."""
    with translated(path):
        connection = kind(str(path), statementcachesize=200)
        try:
            connection.set_busy_handler(_patience(busy))
            # Plans don't depend on bound values: else a query on a partial index is planned anew at each use.
            connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
            if connection.readonly("main"):
                raise apsw.ReadOnlyError("opened read-only")
            # Read to the end: apsw runs the next statement only when the rows of the one before were taken.
            _write_ahead(connection, busy)
            connection.execute(_SETTINGS).fetchall()
        except BaseException:
            connection.close()
            raise
        return connection


def _patience(busy: float) -> Callable[[int], bool]:
    """Look again every millisecond: in SQLite's own pauses, up to 100 ms, fast processes starve slow ones."""
    tries = max(1, int(busy / _LOOK_AGAIN))

    def wait(tried: int) -> bool:
        time.sleep(_LOOK_AGAIN)
        return tried < tries

    return wait


def connect_reader(path: Path, *, busy: float) -> apsw.Connection:
    """A connection that can't write."""
    connection = connect(path, busy=busy)
    connection.execute(_READ_ONLY).fetchall()
    return connection


class translated:  # noqa: N801 - reads as a verb: `with translated(...)`
    """SQLite's errors as ours. A class, for each read goes through it: a generator costs as much as a small read."""

    __slots__ = ("_path",)

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, apsw.Error):
            raise meaning(error, self._path) from error


def meaning(error: BaseException, path: Path) -> BaseException:
    """What an error tells a caller: StoreUnavailable with advice, or StoreError for a write that can't be made."""
    if isinstance(error, _UNAVAILABLE):
        advice = _ADVICE.get(type(error), f"SQLite says: {error}")
        return StoreUnavailable(f"the store {path} can't be used: {advice}")
    if isinstance(error, apsw.Error):
        return StoreError(f"the store refused a write: {type(error).__name__}: {error}")
    if isinstance(error, UnicodeEncodeError):
        return StoreError(f"a text with half a character (a lone surrogate) can't be stored: {error}")
    return error


def check_place(path: Path) -> None:
    """Refuse a path that can't hold a store, before SQLite finds out in its own words."""
    if not path.parent.is_dir():
        raise StoreUnavailable(f"the directory {path.parent} for the store does not exist: create it")
    if path.is_dir():
        raise StoreUnavailable(f"{path} is a directory: name a file in it, for example {path / 'milepost.db'}")
    kind = file_system(path.parent.resolve())
    if kind in _NETWORK:
        raise ConfigurationError(
            f"{path} is on a network file system ({kind}), where SQLite's locks can't be trusted: "
            "use a local disk, or PostgreSQL for several machines"
        )
    if path.exists() and not os.access(path, os.W_OK):
        raise StoreUnavailable(f"the store {path} is read-only: make it writable for this user")


def file_system(directory: Path, mounts: Path = _MOUNTS) -> str | None:
    """The type of the file system that holds `directory` (an absolute path), where the system tells."""
    try:
        lines = mounts.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return None
    best, kind = -1, None
    for line in lines:
        left, _, right = line.partition(" - ")
        point = left.split()[4].replace("\\040", " ")
        if len(point) >= best and directory.is_relative_to(point):
            best, kind = len(point), right.split()[0]
    return kind
