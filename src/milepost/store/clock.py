"""The real clock. Leases need a time that no administrator can set and that all processes of a machine share."""

from __future__ import annotations

import subprocess
import time
from functools import cache
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_SYSCTL = Path("/usr/sbin/sysctl")
_BOOTTIME = getattr(time, "CLOCK_BOOTTIME", None)


class SystemClock:
    """`Clock` by the operating system: CLOCK_BOOTTIME on Linux, the monotonic clock elsewhere."""

    def wall(self) -> float:
        return time.time()

    def monotonic(self) -> float:
        return time.monotonic()

    def boot(self) -> float:
        return time.monotonic() if _BOOTTIME is None else time.clock_gettime(_BOOTTIME)

    def boot_id(self) -> str:
        return _boot_id()


@cache
def _boot_id() -> str:
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return _darwin_boot_id() or "unknown-boot"


def _darwin_boot_id() -> str | None:
    """macOS names its boots too. Where nobody does, the replicas' locks still tell the dead from the living."""
    if not _SYSCTL.exists():
        return None
    command = [str(_SYSCTL), "-n", "kern.bootsessionuuid"]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=5).stdout.strip() or None  # noqa: S603  fixed
