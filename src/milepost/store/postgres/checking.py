"""What an operator should know about a PostgreSQL store (`milepost store check`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from milepost.core.outside import Finding
from milepost.store.postgres.sqltext import SqlText

_OLDEST = 150000
"""PostgreSQL 15: the oldest that our tests and drills run on."""
_SKEW = 1.0
"""Seconds by which the clocks may differ before it is worth a word. It does no harm: leases run on the database's."""


class Server(NamedTuple):
    """What the server says of itself."""

    number: int
    version: str
    keeps: bool
    """It waits for its disk, and could go on after a power cut."""
    synchronous_commit: str
    standbys: str
    """`synchronous_standby_names`"""
    followers: int
    connections: int
    now: float


def findings(
    server: Server, sql: SqlText, builds: Sequence[str], held: Mapping[str, int], *, wall: float
) -> Sequence[Finding]:
    return [
        _version(server, sql),
        Finding(_held(held)),
        _durability(server),
        _replication(server),
        *_builds(builds),
        *_clock(server.now - wall),
    ]


def _version(server: Server, sql: SqlText) -> Finding:
    if server.number < _OLDEST:
        return Finding(
            f"PostgreSQL {server.version} is older than any that we test: upgrade it to 15 or newer", fine=False
        )
    return Finding(f"PostgreSQL {server.version}, tables in schema {sql.schema}, functions in {sql.verbs_schema}")


def _held(held: Mapping[str, int]) -> str:
    return "runs: " + (", ".join(f"{count:,} {state}" for state, count in held.items()) or "none")


def _durability(server: Server) -> Finding:
    if not server.keeps:
        return Finding(
            "fsync or full_page_writes is off: a power cut can destroy the database. Switch both on.", fine=False
        )
    if server.synchronous_commit == "off":
        return Finding(
            "synchronous_commit is off: a crash of the server forgets answers that were acknowledged. Switch it on.",
            fine=False,
        )
    return Finding(f"commits are durable on this server (synchronous_commit = {server.synchronous_commit})")


def _replication(server: Server) -> Finding:
    if server.standbys and server.synchronous_commit not in ("local", "off"):
        return Finding(f"commits wait for a standby ({server.standbys}): a failover to it forgets nothing")
    if server.followers:
        return Finding(
            f"{server.followers} standby(s) follow, but commits wait for none (synchronous_standby_names is empty): a "
            "failover can forget acknowledged answers and recorded steps",
            fine=False,
        )
    return Finding("no standby follows: if this server is lost, what came since the last backup is lost")


def _builds(builds: Sequence[str]) -> list[Finding]:
    if not builds:
        return []
    return [
        Finding(
            f"functions of other builds: {', '.join(builds)}. Those that no replica uses any more can be dropped "
            "(DROP SCHEMA ... CASCADE)"
        )
    ]


def _clock(ahead: float) -> list[Finding]:
    if abs(ahead) < _SKEW:
        return []
    return [
        Finding(f"the database's clock is {ahead:+.0f} s off this machine's; leases and timers go by the database's")
    ]
