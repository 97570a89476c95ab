"""Recipes as their readers run them: a process of its own, in an environment that has the real library."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from processes import ROOT

LIMIT = 50.0
"""Seconds that any wait of these tests may take."""


@dataclass
class Recipe:
    """A running recipe. What it prints is read line by line, as a person would."""

    process: asyncio.subprocess.Process
    log: Path
    said: list[str] = field(default_factory=list)

    async def until(self, text: str) -> None:
        """Read on until a line has this in it."""
        assert self.process.stdout is not None
        async with asyncio.timeout(LIMIT):
            while line := (await self.process.stdout.readline()).decode():
                self.said.append(line.rstrip())
                if text in line:
                    return
        raise AssertionError(f"{text!r} was never said:\n{self.all}\n{self.log.read_text()}")

    async def kill(self) -> None:
        """SIGKILL, by its own pid."""
        self.process.kill()
        await self.process.wait()

    def type(self, *lines: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("".join(f"{line}\n" for line in lines).encode())

    async def ended(self) -> int:
        """Its exit code."""
        assert self.process.stdout is not None
        async with asyncio.timeout(LIMIT):
            self.said += (await self.process.stdout.read()).decode().splitlines()
            return await self.process.wait()

    @property
    def all(self) -> str:
        return "\n".join(self.said)


def environment_of(name: str) -> Path:
    """Where the recipe's Python is; it is made by `make recipes`."""
    python = ROOT / ".tools" / "recipes" / name / "bin" / "python"
    assert python.exists(), f"there is no environment for {name}: `make recipes` makes it"
    return python


@asynccontextmanager
async def cooking(name: str, folder: Path, *arguments: str) -> AsyncIterator[Recipe]:
    """`examples/recipes/with_NAME.py ARGUMENTS`, ended at the end. Its home is the test's folder."""
    path = f"{environment_of(name).parent}:{Path(sys.executable).parent}:/usr/bin:/bin"
    env = {"PATH": path, "HOME": str(folder), "OPENAI_AGENTS_DISABLE_TRACING": "1", "LANG": "C.UTF-8"}
    log = folder / "recipe.log"
    with log.open("ab") as errors:
        process = await asyncio.create_subprocess_exec(
            environment_of(name), ROOT / "examples" / "recipes" / f"with_{name}.py", *arguments, cwd=folder,
            env=env | {key: os.environ[key] for key in ("TMPDIR", "OPENBLAS_CORETYPE") if key in os.environ},
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=errors,
        )  # fmt: skip
    try:
        yield Recipe(process, log)
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
