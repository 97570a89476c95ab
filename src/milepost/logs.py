"""Logs: one structured line for everything that is said here, by us, the SDKs, uvicorn or the author.

Rules:

- Each line carries what is known of its run: `run_id`, `trace_id`, `tool`, `stage`, `attempt`, `epoch`, and
  `session` as a keyed hash. They are bound as context variables where they begin to hold (`structlog.contextvars`).
- Never a raw session id, token, requestState or answer. The SDK logs raw session ids at INFO, validation errors
  quote the rejected value, URLs carry link tokens: so every line of every logger is scrubbed on its way out.
- The SDKs' DEBUG lines print whole messages, answers among them; they are not let through at any setting.
- Lines go to stderr: stdout belongs to the protocol on stdio.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import sys
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Final, TextIO

import structlog

from milepost.settings import LogSettings

Reference = Callable[[str], str]
"""Gives the keyed hash that stands for a session id."""

_PROCESS_KEY: Final = secrets.token_bytes(16)

_CHATTY: Final = ("mcp", "fastmcp", "httpx", "httpx2", "httpcore", "httpcore2", "docket", "asyncio")
"""Loggers whose DEBUG lines may hold whole messages."""

_SILENT: Final = ("uvicorn.access",)
"""Access lines say nothing that ours don't, and carry the query of links."""

_SECRET_KEYS: Final = re.compile(
    r"(?:^|_)(?:token|authorization|cookie|secret|password|answer|answers|reply|replies|content|arguments|headers"
    r"|request_?state|input_?responses|session_?id)$",
    re.IGNORECASE,
)
_SESSION: Final = re.compile(
    r"""(session(?:[ _-]?id)?(?:['"]?\s*[:=]\s*|\s+)['"]?)([A-Za-z0-9_-]{16,})""", re.IGNORECASE
)
_SECRETS: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    (re.compile(r"(bearer\s+)[^\s'\",]+", re.IGNORECASE), r"\1[scrubbed]"),
    (re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]*"), "[scrubbed]"),
    (
        re.compile(
            r"""((?:access_token|refresh_token|client_secret|authorization|password|request_?state|token)['"]?\s*[:=]\s*['"]?)"""
            r"""[^\s'",&}\]]+""",
            re.IGNORECASE,
        ),
        r"\1[scrubbed]",
    ),
    (re.compile(r"input_value=.*?(?=, input_type=)", re.DOTALL), "input_value=[scrubbed]"),
    (re.compile(r"((?:https?://|/)[^\s?'\"]*\?)[^\s'\"]+"), r"\1[scrubbed]"),
)


def process_reference(session_id: str) -> str:
    """A keyed hash that holds for this process only; the store's own key is used once it is open."""
    return hmac.new(_PROCESS_KEY, session_id.encode(), hashlib.sha256).hexdigest()[:16]


class Scrubber:
    """Takes session ids, tokens and answers out of a line. `reference` may be set once the store's key is known."""

    def __init__(self, reference: Reference = process_reference) -> None:
        self.reference = reference

    def __call__(self, _logger: object, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        for key, value in event.items():
            event[key] = self._value(key, value)
        return event

    def _value(self, key: str, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value) if not _SECRET_KEYS.search(key) else self._hidden(key, value)
        if _SECRET_KEYS.search(key) and value is not None:
            return "[scrubbed]"
        if isinstance(value, Mapping):
            return {k: self._value(str(k), v) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [self._value(key, item) for item in value]
        return value if isinstance(value, int | float | bool | None) else self.text(repr(value))

    def _hidden(self, key: str, value: str) -> str:
        return self.reference(value) if "session" in key.lower() else "[scrubbed]"

    def text(self, text: str) -> str:
        """The same text without secrets; a session id becomes its keyed hash."""
        text = _SESSION.sub(lambda found: found[1] + self.reference(found[2]), text)
        for pattern, instead in _SECRETS:
            text = pattern.sub(instead, text)
        return text


def configure(settings: LogSettings, *, scrubber: Scrubber | None = None, stream: TextIO | None = None) -> Scrubber:
    """Send all logs of this process through one formatter, to `stream` (stderr). May be called again."""
    scrubber = scrubber or Scrubber()
    stream = stream or sys.stderr
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                scrubber,
                _renderer(settings, stream),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    _take_over_loggers(level)
    return scrubber


def _renderer(settings: LogSettings, stream: TextIO) -> Any:
    terminal = stream.isatty()
    if settings.format == "json" or (settings.format == "auto" and not terminal):
        return structlog.processors.JSONRenderer(ensure_ascii=False)
    return structlog.dev.ConsoleRenderer(colors=terminal)


def _take_over_loggers(level: int) -> None:
    """Let loggers that were given handlers of their own (FastMCP, uvicorn) speak through the root's."""
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger):
            logger.handlers.clear()
            logger.propagate = name not in _SILENT
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(level, logging.INFO))
    for name in _SILENT:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.captureWarnings(capture=True)
