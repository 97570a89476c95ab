"""Loggers for what also runs in other people's programs, such as the client.

Where structlog is set up (our own processes do that, see `logs`), lines go through it. Where it isn't, they go through
the program's own `logging`. For structlog that nobody set up prints to stdout, which may be a protocol's (a server over
a pipe that has a client inside), and prints the local variables of every traceback, which are answers and tokens.
"""

from __future__ import annotations

import logging
from typing import Any

import structlog


class Logger:
    """Lines of one module: an event, and fields."""

    def __init__(self, name: str) -> None:
        self._structured = structlog.get_logger(name)
        self._plain = logging.getLogger(name)

    def debug(self, event: str, **fields: Any) -> None:
        self._say("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        self._say("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        self._say("warning", event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        """Call it where an exception is being handled."""
        self._say("exception", event, fields)

    def _say(self, how: str, event: str, fields: dict[str, Any]) -> None:
        if structlog.is_configured():
            getattr(self._structured, how)(event, **fields)
        else:
            told = "".join(f" {name}={value!r}" for name, value in fields.items())
            getattr(self._plain, how)("%s%s", event, told, stacklevel=3)
