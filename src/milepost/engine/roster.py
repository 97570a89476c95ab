"""Who is there to run what, and which release new runs are given to: the store's word on it, as of a moment ago.

Both are looked at only where they matter, and then for a moment at most: a run that nobody may run loses nothing by
waiting a second longer to be told so.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Generic, TypeVar

import structlog

from milepost.core.attempts import Claimant
from milepost.core.records import Replica, Run
from milepost.core.versions import Given, Need, choose, held_up, need_of, unmet
from milepost.seams import Clock, Store

log = structlog.get_logger("milepost.engine")

_KEPT = 2.0
"""Seconds for which what the store said is believed."""
_SEEN = 50_000
"""Runs whose needs are remembered; more streams than that wait on no replica."""

T = TypeVar("T")


class _Kept(Generic[T]):
    """What an expensive question was answered with, for a while."""

    def __init__(self, ask: Callable[[], Awaitable[T]], clock: Clock) -> None:
        self._ask = ask
        self._clock = clock
        self._answers: list[T] = []
        self._asked_at = 0.0

    async def get(self) -> T:
        """Raises what asking raises. While one asks anew, the others go by what was said before."""
        before, now = self._asked_at, self._clock.monotonic()
        if not self._answers or now - before > _KEPT:
            self._asked_at = now
            try:
                self._answers = [await self._ask()]
            except BaseException:
                self._asked_at = before
                raise
        return self._answers[0]


class Roster:
    """The replicas of one store, seen from one of them."""

    def __init__(self, store: Store, clock: Clock, claimant: Claimant) -> None:
        self._claimant = claimant
        self._replicas: _Kept[Sequence[Replica]] = _Kept(store.replicas, clock)
        self._given: _Kept[Given] = _Kept(store.given, clock)
        self._unmet: set[Need] = set()
        """What runs need that wait, and no replica meets; each was told once in the log."""
        self._seen: dict[str, Need] = {}
        """What runs need that were asked about while anything was unmet: it never changes, so it is read once."""

    async def place(self, tool: str, version: int, who: bytes) -> tuple[str, int]:
        """(release, version) for a new run of `tool`; `version`: this replica's own. See `core.versions.choose`."""
        given = await self._given.get()
        if not given:
            return "", version
        release, newest = choose(given, tool, version, who, await self._replicas.get())
        return release, version if release == self._claimant.release else newest

    def may_run(self, need: Need) -> bool:
        """Whether this replica may."""
        mine = self._claimant
        return (need.tool, need.version) in mine.accepts and need.given_to in ("", mine.release)

    async def look_at(self, needs: Collection[Need]) -> None:
        """These are needed now: tell, once, of each that no replica meets, and once when nothing waits for it."""
        foreign = [need for need in needs if not self.may_run(need)]
        replicas = await self._replicas.get() if foreign else ()
        reasons = {need: why for need in foreign if (why := unmet(need, replicas)) is not None}
        for need in reasons.keys() - self._unmet:
            fields = {"tool": need.tool, "version": need.version, "given_to": need.given_to}
            log.warning("runs wait for a replica", why=reasons[need], **fields)
        for need in self._unmet - reasons.keys():
            log.info("no run waits for a replica any more", tool=need.tool, version=need.version)
        self._unmet = set(reasons)

    async def held_up(self, run_id: str, load: Callable[[], Awaitable[Run | None]]) -> str | None:
        """Why the run stands although it is a replica's turn, in words for its caller; None where it doesn't.

        `load` reads the run; it is asked only where the run may be one that waits for a replica.
        """
        if not self._unmet:
            self._seen.clear()
            return None
        if self._seen.get(run_id, next(iter(self._unmet))) not in self._unmet:
            return None
        run = await load()
        if run is None:
            return None
        if len(self._seen) >= _SEEN:
            self._seen.clear()
        self._seen[run_id] = need_of(run)
        return held_up(run, await self._replicas.get())
