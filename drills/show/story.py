"""`make demo-replicas`: from the first line to the verdict. Exit code 0: everything holds.

drills/show/story.py [--kills 5]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from itertools import islice
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from drills.over_http import Front
from drills.servers import Server, ServerFailed
from drills.show.proof import judge
from drills.show.stage import Stage
from drills.show.telling import CrowdTelling
from drills.show.travellers import Crowd, book, pnrs
from lab import balancer
from lab.balancer import BalancerFailed
from lab.binaries import NoPostgres
from lab.postgres import PostgresFailed
from milepost.demo.assistant import DemoFailed

REPLICAS = 3
AT_ONCE = 16
TRAVELLERS = 400
"""Booked beforehand; far more than come."""
BETWEEN = 3.5
"""Seconds from one kill to the next."""
TAKEN_UP_LIMIT = 20.0
END_LIMIT = 60.0

PROMISE = (
    "A crowd of travellers changes flights through a load balancer without affinity. Any replica serves any session, "
    "question and answer. Replicas are killed under them with SIGKILL, and replaced by new ones."
)


class Show:
    """The whole of it."""

    def __init__(self, folder: Path, telling: CrowdTelling) -> None:
        self.stage = Stage(folder, balancer.best())
        self.telling = telling
        self.cut = 0
        self.waits: list[float] = []
        self._rng = random.Random()
        self._replacing: list[asyncio.Task[None]] = []

    async def run(self, kills: int) -> bool:
        """False: something does not hold. Raises what keeps it from being shown."""
        try:
            self.telling.line("crowd", f"starting PostgreSQL, {REPLICAS} replicas and the balancer")
            await self.stage.start(REPLICAS)
            travellers = list(islice(pnrs(), TRAVELLERS))
            await asyncio.to_thread(book, self.stage.data, travellers)
            self.telling.begin(PROMISE, self._facts())
            crowd = Crowd(Front(self.stage.balancer.port), travellers, AT_ONCE)
            crowd.begin()
            try:
                await self._kill_and_replace(crowd, kills)
                self._count(crowd, "no more travellers; those who are here go to their ends")
                await crowd.finish(END_LIMIT)
            finally:
                await crowd.aclose()
                await asyncio.gather(*self._replacing)
            await self.stage.stop_replicas()
            return await self._prove(crowd)
        finally:
            await self.stage.aclose()

    def _facts(self) -> list[tuple[str, str]]:
        replicas = ", ".join(f"{one.name} (process {one.pid})" for one in self.stage.replicas)
        return [
            ("PostgreSQL", f"{self.stage.postgres.version}, from {self.stage.postgres.lodging.programs}"),
            ("replicas", replicas),
            ("balancer", f"{self.stage.balancer.name}, port {self.stage.balancer.port}, round-robin, no affinity"),
            ("crowd", f"{AT_ONCE} travellers at a time, half of them of each protocol era"),
        ]

    async def _kill_and_replace(self, crowd: Crowd, kills: int) -> None:
        await asyncio.sleep(BETWEEN)
        for _ in range(kills):
            self._count(crowd)
            victim = self._rng.choice(self.stage.replicas)
            self._replacing.append(asyncio.create_task(self._kill(victim)))
            await asyncio.sleep(BETWEEN)
            while len(self.stage.replicas) < REPLICAS:  # noqa: ASYNC110  another process's start
                await asyncio.sleep(0.1)

    async def _kill(self, victim: Server) -> None:
        await self.stage.kill(victim)
        left = await self.stage.at_work(victim)
        self.cut += len(left)
        self.telling.line("kill", f"kill -9 {victim.pid}: {victim.name} is dead, with {len(left)} runs at work on it")
        await asyncio.gather(self._wait_for(left), self._replace(victim))

    async def _wait_for(self, left: dict[str, int]) -> None:
        waits = await self.stage.taken_up(left, TAKEN_UP_LIMIT)
        self.waits += waits
        if waits:
            self.telling.line("recovery", f"others have taken up all of its {len(waits)} runs after {max(waits):.1f} s")

    async def _replace(self, victim: Server) -> None:
        await self.stage.forget(victim)
        new = await self.stage.add()
        self.telling.line("new", f"{new.name} has joined (process {new.pid})")

    def _count(self, crowd: Crowd, more: str = "") -> None:
        figures = (
            f"{len(crowd.talking)} travellers are talking, {len(crowd.told)} have their receipt, "
            f"{crowd.answered} answers were taken"
        )
        self.telling.line("crowd", f"{figures}; {more}" if more else figures)

    async def _prove(self, crowd: Crowd) -> bool:
        runs = await asyncio.to_thread(self.stage.rows.runs)
        checks = judge(runs, crowd.told, self.stage.effects(), self.cut)
        heard = [one.first - one.broke for one in crowd.resumptions]
        self.telling.crowd(crowd.told)
        self.telling.times(
            [
                ("a run whose replica was killed: until another worked on it", self.waits),
                ("a client whose connection broke: until it heard again", heard),
            ]
        )
        self.telling.verdict(checks)
        return all(check.holds for check in checks)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=6, help="replicas killed and replaced (default 6)")
    kills = parser.parse_args().kills
    telling = CrowdTelling()
    with tempfile.TemporaryDirectory(prefix="milepost-demo-") as folder:
        try:
            holds = asyncio.run(Show(Path(folder), telling).run(kills))
        except (DemoFailed, ServerFailed, PostgresFailed, NoPostgres, BalancerFailed, TimeoutError) as failed:
            telling.failure(str(failed) or "it took too long")
            return 1
        except KeyboardInterrupt:
            sys.stderr.write("stopped\n")
            return 130
    telling.closing(f"{kills} kills, two eras, nothing lost, nothing asked twice." if holds else "The proof failed.")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
