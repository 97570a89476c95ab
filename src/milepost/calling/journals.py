"""Where `milepost call` keeps what has to survive it: a file of the user's own, which nobody else may read."""

from __future__ import annotations

import os
from pathlib import Path

from milepost.core.errors import ConfigurationError


def state_folder() -> Path:
    """The user's state directory for Milepost, by the XDG Base Directory Specification."""
    named = os.environ.get("XDG_STATE_HOME", "")
    return (Path(named) if Path(named).is_absolute() else Path.home() / ".local" / "state") / "milepost"


def default_journal() -> str:
    """The URL of the default journal, whose file is there and is the user's alone. Raises ConfigurationError.

    It holds arguments, answers and what leads to a run, so it is made closed, never closed afterwards.
    """
    path = state_folder() / "client.db"
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as exc:
        raise ConfigurationError(f"{path} can't be used ({exc.strerror}): name a journal with --journal") from None
    return f"sqlite:///{path}"
