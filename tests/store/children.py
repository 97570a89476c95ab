"""Child processes on a store (`child.py`), driven by a test."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

CHILD = Path(__file__).with_name("child.py")
TESTS = CHILD.parent.parent


class Child:
    """One child process; every wait for it is bounded."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def heard(self) -> str:
        assert self.process.stdout is not None
        async with asyncio.timeout(20):
            return (await self.process.stdout.readline()).decode().strip()

    async def told(self, order: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{order}\n".encode())
        await self.process.stdin.drain()
        return await self.heard()

    async def killed(self) -> None:
        self.process.kill()
        async with asyncio.timeout(20):
            await self.process.wait()


@asynccontextmanager
async def child(url: str, replica: str = "child", lease: float = 600.0) -> AsyncIterator[Child]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(CHILD), url, replica, str(lease),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env={"PYTHONPATH": str(TESTS)},
    )  # fmt: skip
    try:
        yield Child(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        # The transport of a subprocess is closed one loop iteration after the process is reaped.
        process._transport.close()  # type: ignore[attr-defined]
