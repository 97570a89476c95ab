"""`milepost connect`: from flags to a running proxy."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from cyclopts import Parameter
from pydantic import ValidationError

from milepost import logs
from milepost.app import Milepost, Parts
from milepost.client.journal import Journal
from milepost.connect.mirror import Mirror
from milepost.connect.places import Places, places
from milepost.connect.remote import Door
from milepost.core.errors import ConfigurationError
from milepost.logs import Scrubber
from milepost.running import run
from milepost.serving import serve_http, serve_stdio
from milepost.settings import Settings, given
from milepost.wire.by_hand import TOOL as BY_HAND
from milepost.wire.target import ToolLane

MODES: Final[Mapping[str, str]] = {"auto": "auto", "modern": "2026-07-28", "handshake": "legacy"}

KEEP_RUNS: Final = 3600.0
"""Seconds that a call which asked is kept after its end: for a host that comes back for its result, no longer."""
DRAIN_GRACE: Final = 1.0
"""Hosts kill a server that takes longer than two seconds to end."""

_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VARIABLE: Final = re.compile(r"\$\{(\w+)\}")


def connect(
    url: Annotated[str, Parameter(help="The remote server's endpoint, such as https://example.org/mcp")],
    *,
    listen: Annotated[
        int | None, Parameter(help="Serve HTTP hosts on this loopback port, not stdin and stdout.")
    ] = None,
    header: Annotated[
        tuple[str, ...],
        Parameter(
            negative=(), show_default=False, help="'Name: value' for each request; ${VAR} is from the environment."
        ),
    ] = (),
    bearer_env: Annotated[str | None, Parameter(help="The environment variable that holds the bearer token.")] = None,
    era: Annotated[
        Literal["auto", "modern", "handshake"], Parameter(help="Which MCP to speak with the remote.")
    ] = "auto",
    journal: Annotated[
        str | None, Parameter(help="Default: a file of this URL's in the state directory; or off.")
    ] = None,
    store: Annotated[str | None, Parameter(help="Default: a file of this URL's in the state directory.")] = None,
    log: Annotated[Literal["json", "console"] | None, Parameter(help="Default: console on a terminal.")] = None,
) -> None:
    """Be, for a host on this machine, the MCP server that is at URL."""
    headers = headers_of(header, bearer_env, os.environ)
    where = places(checked(url), store=store, journal=journal)
    _tried(where)
    settings = settings_of(where, listen, log)
    scrubber = logs.configure(settings.log)
    logging.getLogger("httpx2").setLevel(logging.WARNING)  # a line for each request buries what a host's log is for
    door = Door(url, MODES[era], headers, where.journal)
    proxy = Proxy(Mirror(door, where.seen, one_host=listen is None), settings, scrubber)
    run(serve_stdio(proxy, proxy.mirror.leave) if listen is None else serve_http(proxy, _announce))


def _tried(where: Places) -> None:
    """Find out now that the journal can't be used, not at each request. Raises ConfigurationError, StoreError."""
    if where.journal is not None:
        journal = Journal(where.journal)
        journal.open()
        journal.close()


class Proxy(Milepost):
    """Milepost, hosting a mirror. What its hosts leave behind when it ends is not cancelled."""

    def __init__(self, mirror: Mirror, settings: Settings, scrubber: Scrubber | None = None) -> None:
        super().__init__(mirror, settings=settings, scrubber=scrubber, unlisted_may_ask=True)
        self.mirror = mirror
        mirror.on_by_hand = self._leave_by_hand_to_it

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Parts]:
        async with super().running() as parts:
            self._leave_by_hand_to_it(self.mirror.by_hand)
            yield parts

    def _leave_by_hand_to_it(self, has_its_own: bool) -> None:
        """The remote's own `continue_run` is forwarded like any tool, and ours is not offered."""
        tools = self.parts.hosted.tools
        if has_its_own:
            tools[BY_HAND] = ToolLane(BY_HAND, "stateless", "the remote's own")
        else:
            tools.pop(BY_HAND, None)

    async def drain(self) -> None:
        self.mirror.leave()
        await super().drain()


def settings_of(where: Places, port: int | None, log: str | None) -> Settings:
    """A proxy's settings. `milepost.toml` is not among their sources: it is about the server of its folder."""
    flags: dict[str, Any] = {
        "store": {"url": where.store, "keep_runs": KEEP_RUNS},
        # Whoever reaches it speaks with the user's own token, so: this machine alone, whatever the environment says.
        "http": {"host": "127.0.0.1", "drain_grace": DRAIN_GRACE, **(given(port=port) or {})},
        "single_user": True,
    }
    if log is not None:
        flags["log"] = {"format": log}
    try:
        return Settings(**flags)
    except ValidationError as exc:
        fault = exc.errors()[0]
        raise ConfigurationError(f"setting {'.'.join(map(str, fault['loc']))}: {fault['msg']}") from None


def checked(url: str) -> str:
    """The URL, if it is one to connect to. Raises ConfigurationError."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise ConfigurationError(f"{url!r} is no URL: {exc}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ConfigurationError(
            f"{url!r} is no URL of a server: write https://HOST/PATH, such as https://example.org/mcp"
        )
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError("the URL holds a password, which others can see: use --bearer-env or --header instead")
    return url


def headers_of(given: Sequence[str], bearer_env: str | None, env: Mapping[str, str]) -> dict[str, str]:
    """The headers of each request. Secrets come from the environment, never from the command line, which others see.

    Raises ConfigurationError.
    """
    headers = dict(_header(text, env) for text in given)
    if bearer_env is not None:
        token = env.get(bearer_env, "").strip()
        if not token:
            raise ConfigurationError(f"--bearer-env: there is nothing in the environment variable {bearer_env}")
        headers["Authorization"] = _clean("--bearer-env", f"Bearer {token}")
    return headers


def _header(text: str, env: Mapping[str, str]) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    name, value = name.strip(), value.strip()
    if not colon or not _HEADER.fullmatch(name):
        raise ConfigurationError(f"--header {text!r} is not of the form 'Name: value'")
    if name.lower() == "authorization" and not _VARIABLE.search(value):
        raise ConfigurationError(
            "a token on the command line can be seen by others: put it into an environment variable, and give that "
            "variable's name by --bearer-env, or write --header 'Authorization: ${VARIABLE}'"
        )

    def filled(found: re.Match[str]) -> str:
        if found[1] not in env:
            raise ConfigurationError(f"--header {name}: there is no environment variable {found[1]}")
        return env[found[1]]

    return name, _clean(f"--header {name}", _VARIABLE.sub(filled, value))


def _clean(what: str, value: str) -> str:
    if any(ord(char) < 32 or ord(char) > 126 for char in value):
        raise ConfigurationError(f"{what}: the value holds characters that a header can't carry")
    return value


def _announce(url: str) -> None:
    sys.stderr.write(f"milepost: serving {url}\n")
    sys.stderr.flush()
