"""Our own processes: their event loop, uvloop where there is one, and how often their garbage is collected.

An author's process (`uvicorn travel:app`) keeps what its author has set.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

if sys.platform != "win32":
    import uvloop

T = TypeVar("T")

_YOUNG = 10_000
"""Objects made since the last collection before the next: a call makes hundreds that end with it, and needs none."""


def settle() -> None:
    """Call once all is imported and started: what stands then is looked at by no collection any more.

    The SDKs and pydantic alone are some 300,000 objects that live as long as the process does; going through them
    takes 80 ms, in which nobody is served.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, *gc.get_threshold()[1:])


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run the program's main coroutine, on uvloop where there is one."""
    factory = None if sys.platform == "win32" else uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main)
