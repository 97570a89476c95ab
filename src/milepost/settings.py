"""All settings, in one class: flags are stronger than `MILEPOST_*`, that is stronger than `milepost.toml`.

    [engine]   how runs are worked on         MILEPOST_ENGINE_RUN_TIMEOUT=2h
    [sessions] how long clients are known     MILEPOST_SESSIONS_IDLE=1d
    [http]     the endpoint and its limits    MILEPOST_HTTP_PORT=8080
    [store]    where it is kept               MILEPOST_STORE_URL=sqlite:///milepost.db
    [log]      how it is told                 MILEPOST_LOG_FORMAT=json
    [tools.*]  lanes of tools                 (only in the file; see wire/declared.py)

A section takes the bounds that the part it is for declares itself (`engine/tuning.py`, `wire/limits.py`,
`store/settings.py`), where each stands with its reason, so no default is written twice. Durations are
seconds, or texts such as "90s", "5m", "24h", "7d". A key that nobody knows is an error, with the nearest one.
"""

from __future__ import annotations

import dataclasses
import os
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from milepost.core.durations import seconds
from milepost.core.errors import ConfigurationError
from milepost.core.outside import Retention
from milepost.core.same_call import SameCallRules
from milepost.core.spec import SameRun
from milepost.engine.tuning import Tuning
from milepost.store.settings import PostgresSettings, SqliteSettings, StoreBounds
from milepost.wire.declared import near
from milepost.wire.limits import LOOPBACK_HOSTS, WireLimits

DEFAULT_FILE: Final = "milepost.toml"
_KEEP, _WIRE = Retention(), WireLimits()
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


@dataclass(frozen=True, slots=True)
class EngineSettings(Tuning):
    """`Tuning`, with the rules of "same call, same run" as plain keys."""

    same_run: SameRun = "ask"
    """What an equal call does where its workflow doesn't say: "ask", "always" or "never" attach."""
    reattach_window: float = 120.0
    """Seconds after a break in which an equal call attaches in silence: it is a retry."""
    redeliver_for: float = 600.0
    """Seconds in which a result that was sent, but not surely received, is given again to an equal call."""
    redeliver_bare: float = 30.0
    """The same on the modern wire, where nothing tells a retry from a new wish."""

    def tuning(self) -> Tuning:
        """What the engine takes."""
        rules = SameCallRules(self.same_run, self.reattach_window, self.redeliver_for, self.redeliver_bare)
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(Tuning)}
        return Tuning(**{**plain, "same_call": rules})


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """Handshake-era sessions. Times in seconds."""

    idle: float = _KEEP.session_idle
    """A session that nobody used for so long is unknown. One with an open question stays."""
    lifetime: float = _KEEP.session_lifetime
    """No session gets older."""
    max: int = _WIRE.max_sessions
    """Open sessions over all replicas; one more gets 503 with Retry-After."""
    cache: int = _WIRE.session_cache
    """Rebuilt connections kept per replica."""
    trust: float = _WIRE.session_trust
    """How long a replica believes its copy of a session row."""
    seen_every: float = _WIRE.seen_every
    """How often the time of the last use is written."""


@dataclass(frozen=True, slots=True)
class HttpSettings(WireLimits):
    """`WireLimits`, and where to listen."""

    host: str = "127.0.0.1"
    """Behind a proxy set `allowed_hosts` to the names that clients use."""
    port: int = 8000
    """0 takes a free one and says which."""
    path: str = "/mcp"
    """Where the endpoint is."""
    browser_client: bool = True
    """Serve the client for web pages at `/milepost/client.js`. A route of the server's own there comes first."""
    backlog: int = 2048
    """Connections that the system may hold before they are accepted."""
    own_request_state: bool = False
    """Leave the SDK's own `requestState` (its `Resolve` and hand-made rounds) sealed as the author configured it."""
    request_state_ttl: float = 86400.0
    """Seconds that a round of the SDK's own `requestState` may take; the SDK's default is 600."""


@dataclass(frozen=True, slots=True)
class StoreSettings(SqliteSettings):
    """The store's bounds, and where it is."""

    url: str = "sqlite:///milepost.db"
    """`sqlite:///file` (relative to the current directory; four slashes for an absolute path), or
    `postgresql://user@host/database` for many replicas."""
    keep_runs: float = _KEEP.runs
    """Seconds that a finished run is kept, with its journal and its events."""


@dataclass(frozen=True, slots=True)
class LogSettings:
    format: Literal["auto", "console", "json"] = "auto"
    """`auto`: console on a terminal, JSON elsewhere."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """The SDKs' own debug lines are left out at any level: they hold whole messages."""


# --- from text to values -------------------------------------------------------------------------

_HIDDEN: Final[Mapping[type, frozenset[str]]] = {
    EngineSettings: frozenset({"same_call"}),
    HttpSettings: frozenset({"max_sessions", "session_cache", "session_trust", "seen_every", "single_user"}),
    StoreSettings: frozenset({"retention", "entry_format", "park_for"}),
    PostgresSettings: frozenset(f.name for f in dataclasses.fields(StoreBounds)),
}
"""Fields that another section or key stands for."""


def _section(cls: type, raw: object) -> object:
    """A section's raw keys as values that pydantic can check: durations to seconds, "a,b" to lists, hex to bytes."""
    if not isinstance(raw, Mapping):
        return raw
    hints = typing.get_type_hints(cls)
    known = {f.name: hints[f.name] for f in dataclasses.fields(cls) if f.name not in _HIDDEN.get(cls, ())}
    for key in raw:
        if key not in known:
            raise ValueError(f"no setting {key!r}{near(key, known)}")
    return {key: _value(value, known[key]) for key, value in raw.items()}


def _value(value: object, hint: Any) -> object:
    parts = set(typing.get_args(hint)) if isinstance(hint, types.UnionType) else {hint}
    if isinstance(value, str) and type(None) in parts and value.lower() in {"", "none", "off"}:
        return None
    if float in parts and value is not None:
        number = seconds(value)
        if number < 0:
            raise ValueError(f"{value!r} is below 0")
        return number
    if int in parts and isinstance(value, str) and value.strip().removeprefix("-").isdigit():
        value = int(value)
    if int in parts and isinstance(value, int) and not isinstance(value, bool) and value < 0:
        raise ValueError(f"{value!r} is below 0")
    if typing.get_origin(hint) is Sequence:
        return _items(value, bytes in typing.get_args(hint))
    if hint is bytes and isinstance(value, str):
        return _key(value)
    return value


def _items(value: object, keys: bool) -> object:
    items = [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
    if not keys or not isinstance(items, list):
        return items
    return [_key(item) for item in items]


def _key(item: str | bytes) -> bytes:
    try:
        key = bytes.fromhex(item) if isinstance(item, str) else item
    except ValueError:
        raise ValueError("a key must be written as hex digits (`openssl rand -hex 32`)") from None
    if len(key) < 32:
        raise ValueError("a key must have at least 32 bytes (64 hex digits: `openssl rand -hex 32`)")
    return key


class _File(InitSettingsSource):
    """The parsed `milepost.toml`, as the weakest source above the defaults."""


class Settings(BaseSettings):
    """Everything that can be set, once read. `Settings.read()` is the way to get one."""

    model_config = SettingsConfigDict(
        env_prefix="MILEPOST_",
        env_nested_delimiter="_",
        env_nested_max_split=1,
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        validate_default=False,
    )

    release: str = ""
    """A label for this build, shown on its runs. What it may run is decided by workflow versions."""
    single_user: bool = False
    """All callers are the one local user, who may take up a run on another connection. Never inferred."""
    engine: Annotated[EngineSettings, BeforeValidator(partial(_section, EngineSettings))] = EngineSettings()
    sessions: Annotated[SessionSettings, BeforeValidator(partial(_section, SessionSettings))] = SessionSettings()
    http: Annotated[HttpSettings, BeforeValidator(partial(_section, HttpSettings))] = HttpSettings()
    store: Annotated[StoreSettings, BeforeValidator(partial(_section, StoreSettings))] = StoreSettings()
    postgres: Annotated[PostgresSettings, BeforeValidator(partial(_section, PostgresSettings))] = PostgresSettings()
    log: Annotated[LogSettings, BeforeValidator(partial(_section, LogSettings))] = LogSettings()
    tools: dict[str, Any] = Field(default_factory=dict)
    """The raw `[tools.*]` tables of the file."""

    @classmethod
    def read(cls, config: str | os.PathLike[str] | None = None, **flags: Any) -> Settings:
        """Read all sources. `config`: the file; None takes MILEPOST_CONFIG, or `milepost.toml` if there is one.

        `flags`: values stronger than all, sections as dicts: `read(http={"port": 0})`. Raises ConfigurationError
        (one sentence that names the setting and what to write).
        """
        file = _parse(_choose(config))

        class Read(cls):  # type: ignore[valid-type, misc]  # pydantic-settings takes its sources from the class only
            @classmethod
            def settings_customise_sources(
                cls, settings_cls: type[BaseSettings], init_settings: PydanticBaseSettingsSource, **_: Any
            ) -> tuple[PydanticBaseSettingsSource, ...]:
                return init_settings, EnvSettingsSource(settings_cls), _File(settings_cls, init_kwargs=file)

        try:
            made = Read(**{name: value for name, value in flags.items() if value is not None})
        except ValidationError as exc:
            raise ConfigurationError(_first(exc, cls.model_fields)) from None
        except SettingsError as exc:
            raise ConfigurationError(f"{exc}: a section can't be set as a whole, set its keys") from None
        return cls.model_construct(**{name: getattr(made, name) for name in cls.model_fields})

    def limits(self) -> WireLimits:
        """What the endpoint takes.

        On another address than loopback, Host and Origin are checked only if `allowed_hosts` was set: its default names
        loopback alone, and would refuse every request (as the SDK's does behind a host name).
        """
        plain = {f.name: getattr(self.http, f.name) for f in dataclasses.fields(WireLimits)}
        own = self.sessions
        if self.http.host not in _LOOPBACK and tuple(self.http.allowed_hosts) == LOOPBACK_HOSTS:
            plain["check_hosts"] = False
        return WireLimits(
            **{
                **plain,
                "max_sessions": own.max,
                "session_cache": own.cache,
                "session_trust": own.trust,
                "seen_every": own.seen_every,
                "single_user": self.single_user,
            }
        )

    def sqlite(self) -> SqliteSettings:
        """What the SQLite store takes."""
        plain = {f.name: getattr(self.store, f.name) for f in dataclasses.fields(SqliteSettings)}
        return SqliteSettings(**{**plain, **self._bounds()})

    def postgresql(self) -> PostgresSettings:
        """What the PostgreSQL store takes."""
        return dataclasses.replace(self.postgres, **self._bounds())

    def _bounds(self) -> dict[str, Any]:
        """What both stores have, some of it from other sections."""
        plain = {f.name: getattr(self.store, f.name) for f in dataclasses.fields(StoreBounds)}
        retention = Retention(
            self.store.keep_runs, self.sessions.idle, self.sessions.lifetime, self.engine.redeliver_for
        )
        return {**plain, "retention": retention, "park_for": self.engine.park_for}


def given(**values: Any) -> dict[str, Any] | None:
    """The values that were given, or None, so that weaker sources may speak. For flags."""
    return {name: value for name, value in values.items() if value is not None} or None


def _choose(config: str | os.PathLike[str] | None) -> Path | None:
    named = config or os.environ.get("MILEPOST_CONFIG")
    if named is None:
        return Path(DEFAULT_FILE) if Path(DEFAULT_FILE).is_file() else None
    if not Path(named).is_file():
        raise ConfigurationError(f"there is no file {os.fspath(named)}")
    return Path(named)


def _parse(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as exc:
        raise ConfigurationError(f"{path} is not valid TOML: {exc}") from None
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"{path} can't be read: {exc}") from None


def _first(exc: ValidationError, known: Iterable[str]) -> str:
    """The first fault, in one sentence."""
    fault = exc.errors()[0]
    place = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        return f"there is no setting or section {place!r}{near(place, known)}"
    message = fault["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(fault["input"], Mapping) else f" (it is {fault['input']!r})"
    return f"setting {place}: {message[0].lower()}{message[1:]}{shown}"
