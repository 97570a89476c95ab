"""`make drill-client`: faults at chosen places between real clients and real servers, and what becomes of each call.

drills/client/run.py --conversations 600 [--seed 7] [--only NAME ...] [--json FILE] [--keep FOLDER]

Exit code 1: something doesn't hold (so also: a call to Milepost did not finish). `--only` holds single conversations of
a plan again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from drills.client.child import quiet
from drills.client.conversation import OURS, STOCK, Conversation, processes
from drills.client.findings import Findings, Record
from drills.client.plan import KILLED, RESTART, SERVERS, Planned, plan
from drills.client.served import Lane, process_of
from drills.client.talking import POLICY, STOCK_LIMIT
from drills.client.told import Told
from drills.ledger import Ledger
from drills.servers import ServerFailed

_AT_ONCE = {"": 12, RESTART: 5, KILLED: 5}
"""Conversations at the same time: any, those in the lane whose server is killed, those whose client is."""
_SHARE = 3
"""With each stock server, and by the stock client with Milepost, a third of the conversations."""
_QUIET = 1.0
"""Seconds after the last conversation in which a late effect would still be seen."""


def main() -> int:
    arguments = _arguments()
    quiet()
    seed = arguments.seed if arguments.seed is not None else random.randrange(10**6)
    findings = Findings()
    with tempfile.TemporaryDirectory(prefix="milepost-drill-client-") as made:
        folder = Path(arguments.keep or made).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        findings.say(
            f"Drill of the client with seed {seed}: {arguments.conversations} conversations with Milepost, a third of "
            f"that with each stock server, and again by the stock client. Its policy: first_delay "
            f"{POLICY.first_delay:g} s, max_delay {POLICY.max_delay:g} s, silence {POLICY.silence:g} s, give_up_after "
            f"{POLICY.give_up_after:g} s, no circuit breaker. The stock client is given {STOCK_LIMIT:g} s a call."
        )
        try:
            record = asyncio.run(Drill(folder, seed, findings).run(arguments))
        except ServerFailed as failed:
            findings.say(f"The drill can't go on: {failed}")
            return 1
        except KeyboardInterrupt:
            return 130
        if arguments.json:
            Path(arguments.json).write_text(json.dumps(record.as_json(), indent=1))
        return 0 if findings.found(record) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=int, default=600, help="with Milepost (default 600)")
    parser.add_argument("--seed", type=int, help="repeats a plan; printed by every drill")
    parser.add_argument("--servers", nargs="*", default=SERVERS, choices=SERVERS, help="these alone")
    parser.add_argument("--only", nargs="*", default=(), help="names of conversations, as a violation gives them")
    parser.add_argument("--json", help="a file to write all that was seen to")
    parser.add_argument("--keep", help="a folder to keep the ledger, journals and logs in")
    return parser.parse_args()


class Drill:
    """One group of conversations after the other; within a group many at once."""

    def __init__(self, folder: Path, seed: int, findings: Findings) -> None:
        self._folder = folder
        self._findings = findings
        self._record = Record(seed)
        self._began = time.monotonic()

    async def run(self, arguments: argparse.Namespace) -> Record:
        context, conversations, only = processes(), arguments.conversations, arguments.only
        for server in arguments.servers:
            number = conversations if server == "milepost" else conversations // _SHARE
            planned = plan(self._record.seed, server, number)
            for client in (OURS, STOCK):
                wanted = [one for one in planned if _is_wanted(one, client, only)]
                if client == STOCK and not only:
                    wanted = wanted[: conversations // _SHARE]
                if wanted:
                    await self._group(server, client, wanted, context)
        self._record.seconds = time.monotonic() - self._began
        return self._record

    async def _group(self, server: str, client: str, planned: Sequence[Planned], context: ForkServerContext) -> None:
        began, here = time.monotonic(), self._folder / client
        lanes = {name: Lane(process_of(server, here / f"{server}-{name}")) for name in ("calm", "restarted")}
        rooms = {act: asyncio.Semaphore(limit) for act, limit in _AT_ONCE.items()}
        try:
            await asyncio.gather(*(lane.process.start() for lane in lanes.values()))
            told = await asyncio.gather(*(self._hold(one, client, lanes, rooms, here, context) for one in planned))
            await asyncio.sleep(_QUIET)
        finally:
            for lane in lanes.values():
                await lane.aclose()
        self._record.told += told
        self._record.restarts += lanes["restarted"].restarts
        for effect in Ledger(here / "ledger.jsonl").effects():
            if effect.conversation in {one.name for one in told}:
                self._record.effects.setdefault(effect.conversation, []).append(effect)
        self._findings.say(f"{server}, by the {client} client: {len(told)} calls in {time.monotonic() - began:.0f} s")

    async def _hold(
        self,
        planned: Planned,
        client: str,
        lanes: dict[str, Lane],
        rooms: dict[str, asyncio.Semaphore],
        folder: Path,
        context: ForkServerContext,
    ) -> Told:
        act = next((act for act in (RESTART, KILLED) if planned.suffers(act)), "")
        async with rooms[act]:
            lane = lanes["restarted" if act == RESTART else "calm"]
            return await Conversation(planned, lane, client, folder).hold(context)


def _is_wanted(planned: Planned, client: str, only: Sequence[str]) -> bool:
    if client == STOCK and planned.suffers(KILLED):
        return False
    name = planned.name + ("" if client == OURS else "-stock")
    return not only or name in only


if __name__ == "__main__":
    sys.exit(main())
