"""A process of its own on a store, for tests that kill or stop it. Driven by lines on stdin.

    python child.py STORE REPLICA LEASE

It joins, creates a running run, and says `run <id>`. Then `append` appends to it and says `appended` or `fenced`;
`answer <run id>` answers that run's first question and says `answered`.
"""

from __future__ import annotations

import asyncio
import sys

from milepost.core.attempts import Batch, Claim
from milepost.core.errors import Fenced
from milepost.seams import Store
from milepost.store import open_store
from store.making import ANN, accept, entry, start


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


async def obey(store: Store, claim: Claim, order: list[str]) -> None:
    if order[0] == "answer":
        await store.answer(order[1], {1: accept()}, by=ANN, via="child")
        say("answered")
        return
    try:
        await store.append(claim.fence, Batch([entry(1)]), lease=5.0)
    except Fenced:
        say("fenced")
    else:
        say("appended")


async def main(url: str, replica: str, lease: str) -> None:
    store = open_store(url)
    await store.open()
    await store.join(replica)
    claim = await start(store, replica, lease=float(lease), id=f"run-{replica:0>32}")
    say(f"run {claim.run.id}")
    while line := await asyncio.to_thread(sys.stdin.readline):
        await obey(store, claim, line.split())
    await store.aclose()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
