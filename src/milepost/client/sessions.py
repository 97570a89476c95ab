"""The handshake era's session: opened, sent along, opened anew when the server has forgotten it, and ended.

A 404 means that the session is gone (2025-11-25 basic/transports): the client must initialize anew. That is done once,
however many requests meet the 404 at the same time; what the session had set (log level, resource subscriptions) is set
again, and each request then goes on by itself.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
from mcp import MCPError
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

from milepost.client import telemetry
from milepost.client.errors import CallError
from milepost.client.events import Reinitialized
from milepost.client.interaction import JSON, Interaction
from milepost.client.request import Request
from milepost.client.retrying import Fault, Known, SessionGone, ceiling, delay
from milepost.loggers import Logger

if TYPE_CHECKING:
    from milepost.client.link import Link

_log = Logger(__name__)


@dataclass(eq=False, slots=True, weakref_slot=True)
class Session:
    """An open session. `id`: None where the server gave none."""

    id: str | None
    version: str
    result: JSON
    """The InitializeResult."""
    opened: float = field(default_factory=anyio.current_time)
    last_event_id: str | None = None
    """Where its own stream stands."""

    def headers(self) -> dict[str, str]:
        named = {} if self.id is None else {"mcp-session-id": self.id}
        return {"mcp-protocol-version": self.version, **named}


class Keeper:
    """Where sessions are kept across processes. The default keeps none."""

    def load(self) -> Mapping[str, Any] | None:
        """What `save` was given last, if a call that needs it is pending."""
        return None

    async def save(self, body: Mapping[str, Any]) -> None:
        """Called when a session is opened."""

    async def drop(self, session_id: str) -> None:
        """Called when it is over."""


class Sessions:
    """The session of one link."""

    def __init__(self, keeper: Keeper | None = None) -> None:
        self.open: Session | None = None
        self.on_renewed: Callable[[JSON], None] = lambda _result: None
        """Told of each new InitializeResult, after the first."""
        self._keeper = keeper or Keeper()
        self._link: Link
        self._lock = anyio.Lock()
        self._params: JSON = {}
        self._named: str | None = None
        self._log_level: str | None = None
        self._subscribed: dict[str, None] = {}
        self._taken_over = False

    def bind(self, link: Link) -> None:
        self._link = link

    # --- opening -------------------------------------------------------------------------------------

    @property
    def may_be_taken_over(self) -> bool:
        """An earlier process left a session that its pending calls need."""
        return self._keeper.load() is not None

    def taken_over(self) -> JSON | None:
        """The result of `initialize`, where the session of an earlier process is taken over. No wire traffic."""
        kept = self._keeper.load()
        if kept is None:
            return None
        self.open = Session(kept["id"], kept["version"], kept["result"], last_event_id=kept.get("last_event_id"))
        self._params, self._taken_over = kept["params"], True
        self._log_level, self._subscribed = kept.get("log_level"), dict.fromkeys(kept.get("subscribed", ()))
        return self.open.result

    def named(self, session_id: str | None) -> None:
        """The id in the response to `initialize`. Raises Fault for one that can't go into a header."""
        limit = self._link.policy.max_session_id
        if session_id is not None and (len(session_id) > limit or not _is_visible(session_id)):
            raise Fault(
                Known.REFUSED,
                f"the server gave a session id that is no visible ASCII of at most {limit} characters",
                again=False,
            )
        self._named = session_id or None

    async def opened(self, params: JSON, result: JSON) -> Session:
        """`initialize` went through: this is the session from now on."""
        self._params = {key: value for key, value in params.items() if key != "_meta"}
        session = self.open = self._made(result)
        await self._save()
        return session

    def _made(self, result: JSON) -> Session:
        version = result.get("protocolVersion")
        return Session(self._named, version if isinstance(version, str) else "", result)

    async def _save(self) -> None:
        session = self.open
        if session is not None and session.id is not None:
            await self._keeper.save(
                {
                    "id": session.id,
                    "version": session.version,
                    "result": session.result,
                    "params": self._params,
                    "last_event_id": session.last_event_id,
                    "log_level": self._log_level,
                    "subscribed": list(self._subscribed),
                }
            )

    async def initialized(self) -> None:
        """The SDK's session says that it is ready: tell the server, and listen to its own stream."""
        session = self.open
        if session is None:
            return
        if not self._taken_over:
            await self._say_initialized(session)
        self._link.spawn_apart(self._listen, session)

    async def _say_initialized(self, session: Session) -> None:
        message = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        failures = 0
        while True:
            try:
                await self._link.post(session, message)
                return
            except SessionGone:
                return  # the next request will find out, and open another
            except (Fault, MCPError) as exc:
                failures += 1
                if failures > 5 or (isinstance(exc, Fault) and not exc.again):
                    _log.info("the server did not take `initialized`", reason=str(exc))
                    return
                await anyio.sleep(delay(self._link.policy, failures, random.random()))  # noqa: S311  jitter

    async def current(self, request: Request) -> Session:
        """The session to send with; a new one, opened once for all who wait, where the last is gone."""
        while self.open is None:
            await self.renew(request)
        return self.open

    def lost(self, session: Session | None) -> None:
        """The server does not know this session any more."""
        if session is not None and self.open is session:
            self.open = None
            self._link.forget(session)

    async def renew(self, request: Request) -> None:
        """Open a session, unless somebody has meanwhile. Raises what `initialize` does.

        It is not used before all is set: whoever is cancelled on the way leaves nothing half open to the others.
        """
        async with self._lock:
            if self.open is not None:
                return
            opening = Request("initialize", dict(self._params), {}, Interaction("initialize"), modern=False)
            opening.heard, opening.stubborn = request.heard, True
            result = await self._link.pursue(opening)
            if result.get("protocolVersion") not in HANDSHAKE_PROTOCOL_VERSIONS:
                raise Fault(Known.REFUSED, "the server came back with another protocol: connect anew", again=False)
            session = self._made(result)
            await self._say_initialized(session)
            await self._restore(session)
            self._renewed(session)
            await self._save()

    def _renewed(self, session: Session) -> None:
        self.open, self._taken_over = session, False
        self.on_renewed(session.result)
        self._link.tell(Reinitialized(reason="the server did not know the session any more"))
        telemetry.recovered("re-initialized")
        self._link.spawn_apart(self._listen, session)

    async def _restore(self, session: Session) -> None:
        """Set again what the old session had set."""
        wanted: list[tuple[str, JSON]] = [("resources/subscribe", {"uri": uri}) for uri in self._subscribed]
        if self._log_level is not None:
            wanted.insert(0, ("logging/setLevel", {"level": self._log_level}))
        for method, params in wanted:
            again = Request(method, params, {}, Interaction(method), modern=False)
            try:
                await self._link.once(again, session)
            except (Fault, MCPError, CallError) as exc:
                _log.warning("what a session had set could not be set again", method=method, reason=str(exc))

    def noticed(self, method: str, params: Mapping[str, Any]) -> None:
        """A request went through that a session must remember."""
        if method == "logging/setLevel":
            self._log_level = params.get("level")
        elif method == "resources/subscribe":
            self._subscribed[str(params.get("uri"))] = None
        elif method == "resources/unsubscribe":
            self._subscribed.pop(str(params.get("uri")), None)

    # --- its own stream --------------------------------------------------------------------------------

    async def _listen(self, session: Session) -> None:
        """Read what the server says outside any request, for as long as the session lives."""
        failures = 0
        while self.open is session:
            try:
                retry, said = await self._read_own(session)
            except (SessionGone, MCPError):
                return  # it has no such stream (405, 400, or 404: if its session is gone, the next request finds out)
            except Fault as fault:
                if not fault.again:
                    return
                failures += 1
                retry = delay(self._link.policy, failures, random.random(), fault.retry_after)  # noqa: S311  jitter
            except Exception:  # an `auth` that fails, say: it is no matter of the calls
                _log.exception("the session's own stream can't be read")
                return
            else:
                failures = 0 if said else failures + 1  # one that is empty again and again is asked less often
                retry = max(retry, ceiling(self._link.policy, max(1, failures)))
            await anyio.sleep(retry)

    async def _read_own(self, session: Session) -> tuple[float, bool]:
        """Until the server ends it. Returns the wait before it is read again, and whether anything was said."""
        policy, said = self._link.policy, False
        headers = {} if session.last_event_id is None else {"last-event-id": session.last_event_id}
        retry = policy.max_delay
        response = await self._link.fetch(session, headers)
        try:
            while (batch := await response.events()) is not None:
                for event in batch:
                    retry = retry if event.retry is None else event.retry / 1000
                    if event.kind == "message" and event.data:
                        said = True
                        await self._link.heard(session, event.data)
                    session.last_event_id = event.id or session.last_event_id
        finally:
            await response.aclose()
        return min(retry, policy.max_retry_after), said

    # --- ending ----------------------------------------------------------------------------------------

    async def end(self, *, forget: bool) -> None:
        """Say goodbye. `forget` False: leave it open, for another process to take over."""
        session, self.open = self.open, None
        if session is None:
            return
        telemetry.session_over(anyio.current_time() - session.opened, self._link.where, session.version)
        if not forget or session.id is None:
            return
        try:
            await self._link.delete(session)
        except (Fault, MCPError) as exc:
            _log.info("the session could not be ended", reason=str(exc))
        await self._keeper.drop(session.id)


def _is_visible(text: str) -> bool:
    return text.isascii() and all("!" <= char <= "~" for char in text)
