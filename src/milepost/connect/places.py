"""Where a proxy keeps what must outlive it: one folder per remote, in the user's state directory.

Several proxies of one remote (one in each host) share it. Nothing in it grows: runs are swept soon after their end, and
the journal forgets what is finished.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from milepost.core.errors import ConfigurationError

OFF = "off"
"""`--journal off`: keep no journal."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where a proxy of one remote keeps things."""

    store: str
    """The store of the hosting side, as a URL: sessions, questions under way."""
    journal: str | None
    """The client's journal, as a URL: calls that the remote has and the host has no result of."""
    seen: Path | None
    """What the remote said of itself when it was last there."""


def places(url: str, *, store: str | None, journal: str | None, env: Mapping[str, str] = os.environ) -> Places:
    """The places for `url`; `store` and `journal` are the user's own choices. Makes the folder where one is needed.

    Raises ConfigurationError where it can't be made.
    """
    kept = None if journal == OFF else journal
    if store is not None and journal is not None:
        return Places(store, kept, None)
    folder = state_folder(env) / "connect" / name_of(url)
    _make(folder)
    return Places(
        store or f"sqlite:///{folder / 'milepost.db'}",
        kept if journal is not None else f"sqlite:///{folder / 'client.db'}",
        folder / "seen.json",
    )


def state_folder(env: Mapping[str, str]) -> Path:
    """`$XDG_STATE_HOME/milepost`, by default in `~/.local/state`. Raises ConfigurationError where there is no home."""
    given = env.get("XDG_STATE_HOME", "")
    if given and Path(given).is_absolute():  # the XDG rules: a relative one is to be ignored
        return Path(given) / "milepost"
    try:
        return Path.home() / ".local" / "state" / "milepost"
    except RuntimeError:
        raise ConfigurationError(
            "there is no home directory to keep state in: set XDG_STATE_HOME, or give --store and --journal"
        ) from None


def name_of(url: str) -> str:
    """A folder's name for a remote: readable, and its own for each URL."""
    readable = re.sub(r"[^a-z0-9.-]+", "-", (urlsplit(url).hostname or "server").lower())[:40].strip("-.") or "server"
    return f"{readable}-{hashlib.sha256(url.encode()).hexdigest()[:12]}"


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)  # calls and answers are the user's own affair
    except OSError as exc:
        raise ConfigurationError(
            f"state can't be kept in {folder} ({exc.strerror}): set XDG_STATE_HOME, or give --store and --journal"
        ) from None
