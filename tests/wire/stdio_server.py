"""A child process that serves the sample on its stdin and stdout. Arguments: the store's file, and the ledger's."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import SupportsIndex

import structlog

from milepost.app import Milepost
from milepost.wire.stdio import serve_pipe
from wire.sample import Effects, a_server


class Ledger(Effects):
    """Effects written to a file at once, so that a kill loses none."""

    def append(self, effect: str, /) -> None:
        sys.stdout.write("a stray print does not break the protocol\n")
        with Path(sys.argv[2]).open("a") as ledger:
            ledger.write(effect + "\n")

    def insert(self, place: SupportsIndex, effect: str, /) -> None:
        raise NotImplementedError


async def main() -> None:
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    app = Milepost(a_server(Ledger(), asyncio.Event()), store=f"sqlite:///{sys.argv[1]}")
    async with app.running() as parts:
        await serve_pipe(parts.endpoint)


if __name__ == "__main__":
    asyncio.run(main())
