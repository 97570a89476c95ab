"""`make drill`: kill and stop real servers at random points, then check what is left. Exit code 1: something fails.

drills/run.py --kills 200 [--pauses 10] [--seed 7] [--keep FOLDER]
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from drills import kills, pauses
from drills.plan import plan
from drills.report import Report
from drills.servers import Place, ServerFailed


def main() -> int:
    arguments = _arguments()
    report = Report()
    seed = arguments.seed if arguments.seed is not None else random.randrange(10**6)
    with tempfile.TemporaryDirectory(prefix="milepost-drill-") as made:
        folder = Path(arguments.keep or made).resolve()
        for name in ("kills", "pauses"):
            (folder / name).mkdir(parents=True)
        try:
            return 0 if asyncio.run(_drill(arguments, folder, seed, report)) else 1
        except ServerFailed as failed:
            report.say(f"The drill can't go on: {failed}")
            return 1
        except KeyboardInterrupt:
            return 130


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="how often a server is killed (default 200)")
    parser.add_argument("--pauses", type=int, help="how often one is stopped (default: a twentieth of the kills)")
    parser.add_argument("--seed", type=int, help="repeats a plan; printed by every drill")
    parser.add_argument("--keep", help="a folder to keep the store, the ledger and the logs in")
    return parser.parse_args()


async def _drill(arguments: argparse.Namespace, folder: Path, seed: int, report: Report) -> bool:
    stops = arguments.pauses if arguments.pauses is not None else max(2, arguments.kills // 20)
    report.say(
        f"Drill with seed {seed}: {arguments.kills} kills, {stops} pauses. "
        f"The same plan again: drills/run.py --kills {arguments.kills} --pauses {stops} --seed {seed}"
    )
    holds = True
    if arguments.kills:
        holds = await _kills(arguments.kills, folder / "kills", seed, report)
    if stops:
        holds &= await _pauses(stops, folder / "pauses", seed, report)
    return holds


async def _kills(number: int, folder: Path, seed: int, report: Report) -> bool:
    place = Place(folder, kills.SETTINGS)
    drill = kills.KillDrill(place, seed, plan(seed, number), lambda hit: report.kill(hit, number))
    return report.fought(await drill.run(), seed)


async def _pauses(number: int, folder: Path, seed: int, report: Report) -> bool:
    place = Place(folder, pauses.SETTINGS)
    drill = pauses.PauseDrill(place, seed, number, lambda pause: report.pause(pause, number))
    return report.paused(await drill.run(), seed)


if __name__ == "__main__":
    sys.exit(main())
