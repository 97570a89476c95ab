"""`make drill-replicas`: many replicas on one PostgreSQL, any of which may die, stop or lose its network at any moment.

drills/replicas.py [--conversations 500] [--strikes 60] [--only FAULT] [--minutes 5] [--seed 7] [--keep FOLDER]
drills/replicas.py --check FOLDER/history.jsonl

Clients of both eras hold conversations through a balancer without affinity, over three replicas, while a nemesis works.
What was seen is recorded as it happens; afterwards the record alone is checked (DESIGN section 13). Exit code 1:
something does not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from drills import recorded, strikes
from drills.checks import History
from drills.crowd import Crowd
from drills.findings import Findings
from drills.fleet import Fleet
from drills.ledger import Ledger
from drills.recorded import NEMESIS, Recorder
from drills.servers import Place, ServerFailed
from drills.strikes import CLIENT_PATIENCE, LEASE, Strike, Strikes
from drills.talk import Resumption
from drills.target import STEPS
from lab.balancer import Balancer, BalancerFailed, Haproxy, RoundRobin
from lab.binaries import NoPostgres
from lab.faketime import NoFaketime
from lab.postgres import PostgresFailed

SETTINGS = {
    "MILEPOST_ENGINE_LEASE": f"{LEASE:g}s",
    "MILEPOST_HTTP_RETRY": "0.1",
    "MILEPOST_HTTP_HEARTBEAT": "1",
    "MILEPOST_HTTP_RETRY_AFTER": "1",
}
REPLICAS = 3
TRIES = 3
"""How often a fault is brought about until it hits work in flight."""


@dataclass
class Left:
    """What a drill leaves behind."""

    history: History
    strikes: Sequence[Strike] = ()
    resumptions: Sequence[Resumption] = ()
    failures: list[str] = field(default_factory=list)


class ReplicasDrill:
    """One drill: the fleet, the crowd, the nemesis, the record."""

    def __init__(self, folder: Path, balancer: Balancer, seed: int, tell: Callable[[Strike], None]) -> None:
        self.file = folder / "history.jsonl"
        place = Place(folder, SETTINGS)
        self.recorder = Recorder(self.file)
        self.rng = random.Random(f"replicas {seed}")
        self.fleet = Fleet(place, balancer, self.rng)
        self.ledger = Ledger(place.ledger)
        self.nemesis = Strikes(self.fleet, self.ledger, self.rng)
        self.made: list[Strike] = []
        self._seed = seed
        self._tell = tell

    async def run(self, conversations: int, plan: Sequence[str], minutes: float) -> Left:
        failures: list[str] = []
        over = time.monotonic() + 60 * minutes
        try:
            await self.fleet.start(REPLICAS)
            crowd = Crowd(self.fleet.front, self.recorder, self._seed, patience=CLIENT_PATIENCE)
            crowd.begin()
            try:
                for fault in plan:
                    if time.monotonic() > over:
                        break
                    await asyncio.sleep(self.rng.uniform(0.1, 0.8))
                    await self._strike(fault)
                await crowd.reach(conversations)
                await crowd.end()
            finally:
                await crowd.aclose()
                failures = await self.fleet.stop_replicas()
            for slot in crowd.slots:
                for one in slot.resumptions:
                    self.recorder.line(slot.name, "info", "resumption", asdict(one))
            await asyncio.to_thread(self._read_back)
        finally:
            await self.fleet.aclose()
            self.recorder.close()
        lines = list(recorded.lines(self.file))
        failures += recorded.open_operations(lines)
        return Left(recorded.history(lines, STEPS), self.made, crowd.resumptions, failures)

    async def _strike(self, fault: str) -> None:
        """Until it hits something: one that fell on nothing shows nothing."""
        for _ in range(TRIES):
            await self._strike_once(fault)
            if self.made[-1].hit or self.made[-1].missing:
                return

    async def _strike_once(self, fault: str) -> None:
        self.recorder.line(NEMESIS, "invoke", fault, None)
        try:
            strike = await self.nemesis.strike(fault)
        except NoFaketime as missing:
            strike = Strike(fault, 0.0, missing=str(missing))
        self.recorder.line(NEMESIS, "info", fault, asdict(strike))
        self.made.append(strike)
        self._tell(strike)

    def _read_back(self) -> None:
        disruptions = [one for strike in self.made for one in strike.disruptions]
        self.recorder.left(self.ledger.effects(), self.fleet.rows.runs(), disruptions)


def main() -> int:
    arguments = _arguments()
    findings = Findings()
    if arguments.check:
        return 0 if findings.checked(recorded.history(recorded.lines(arguments.check), STEPS)) else 1
    seed = arguments.seed if arguments.seed is not None else random.randrange(10**6)
    with tempfile.TemporaryDirectory(prefix="milepost-drill-") as made:
        folder = (arguments.keep or Path(made)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            return 0 if asyncio.run(_drill(arguments, folder, seed, findings)) else 1
        except (ServerFailed, PostgresFailed, NoPostgres, BalancerFailed) as failed:
            findings.say(f"The drill can't go on: {failed}")
            return 1
        except KeyboardInterrupt:
            return 130


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=int, default=500, help="held at least (default 500)")
    parser.add_argument("--strikes", type=int, default=60, help="faults brought about (default 60)")
    parser.add_argument("--only", action="append", choices=strikes.FAULTS, help="this fault, and others so named")
    parser.add_argument("--minutes", type=float, default=24 * 60, help="no strike begins later than this")
    parser.add_argument("--seed", type=int, help="repeats a plan; printed by every drill")
    parser.add_argument("--keep", type=Path, help="a folder to keep the record, the ledger and the logs in")
    parser.add_argument("--balancer", choices=("own", "haproxy"), default="own")
    parser.add_argument("--check", type=Path, help="only check this record, which an earlier drill has kept")
    return parser.parse_args()


async def _drill(arguments: argparse.Namespace, folder: Path, seed: int, findings: Findings) -> bool:
    balancer: Balancer = Haproxy() if arguments.balancer == "haproxy" else RoundRobin()
    plan = strikes.plan(seed, arguments.strikes, arguments.only or strikes.FAULTS)
    findings.opening(seed, arguments.conversations, plan, balancer.name)
    drill = ReplicasDrill(folder, balancer, seed, lambda strike: findings.strike(strike, len(drill.made), len(plan)))
    left = await drill.run(arguments.conversations, plan, arguments.minutes)
    return findings.found(left.history, left.strikes, left.resumptions, left.failures, seed)


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        sys.exit(main())
