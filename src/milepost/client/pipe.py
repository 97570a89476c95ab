"""A server that is a child process of ours, as an endpoint: started when it is needed, and again when it has died.

Each message finds the request that it belongs to, so that a link hears a pipe as it hears HTTP: one response for each
request. A new process knows nothing of the last one's session, which is what a 404 says over HTTP: `SessionGone`, and
the link opens another.
"""

from __future__ import annotations

import secrets
import shlex
from collections import deque
from collections.abc import Mapping
from contextlib import nullcontext
from types import TracebackType
from typing import Final, Self

import anyio
import pydantic_core
from anyio.abc import TaskGroup, TaskStatus
from mcp import StdioServerParameters
from mcp.shared.subscriptions import SUBSCRIPTION_ID_META_KEY
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from milepost.client.authorizing import Waiting
from milepost.client.exchange import Silence
from milepost.client.interaction import JSON, META
from milepost.client.policy import Policy
from milepost.client.process import ServerProcess, running
from milepost.client.request import encode
from milepost.client.retrying import Fault, Known, SessionGone
from milepost.client.sse import ServerSent, TooLarge
from milepost.client.telemetry import Where
from milepost.loggers import Logger

_log = Logger(__name__)

_SESSION: Final = "mcp-session-id"
_FIRST_CONTACT: Final = frozenset({"initialize", "server/discover"})
_MOST_UNREAD: Final = 16 * 2**20
"""Bytes that may wait for one reader."""
_EACH: Final = 64
"""Bytes that a message takes beside what it says."""
_STILLBORN: Final = 5
"""Processes in a row that may end before one has ever said something: the command is wrong."""
_ENDED: Final = "the server's process has ended"


def place_of(server: StdioServerParameters) -> str:
    """Its command, as a name. (An argument may be a path that is no text.)"""
    return f"stdio:{shlex.join([server.command, *server.args])}".encode(errors="backslashreplace").decode()


class PipeResponse:
    """What a child says to one request, or, for a request of none, beside all of them."""

    is_events = True
    is_json = False
    gave_signs = False

    def __init__(self, child: Child | None = None, message: JSON | None = None, *, modern: bool = False) -> None:
        """`child`, `message`: whose, and which request's; without them it is over at once."""
        message = message or {}
        meta = (message.get("params") or {}).get("_meta") or {}
        self.status = 202 if child is None else 200
        self.headers: Mapping[str, str] = {}
        self.wire_id = message.get("id")
        self.token = meta.get("progressToken")
        self.method = message.get("method", "")
        self._child = child
        self.tells = modern and self.method not in _FIRST_CONTACT
        """A modern server knows of a cancellation by a notification; of the other era the link says it itself."""
        self._unread: deque[bytes] = deque()
        self._unread_bytes = 0
        self._news = anyio.Event()
        self._over = child is None
        self._fault: Fault | None = None

    def put(self, data: bytes, *, last: bool = False) -> None:
        """A message came for it. `last`: its response."""
        if self._fault is not None:
            return
        if self._unread_bytes < _MOST_UNREAD:
            self._unread.append(data)
            self._unread_bytes += len(data) + _EACH
        else:
            reason = f"messages of more than {_MOST_UNREAD // 2**20} MiB wait to be read"
            self._fault = Fault(Known.UNKNOWN, reason, again=False)
        self.over(done=last)

    def over(self, fault: Fault | None = None, *, done: bool = True) -> None:
        """Nothing more will come; `fault`: and nothing that ends it came."""
        self._fault = self._fault or fault
        self._over = self._over or done
        self._news.set()

    def be_patient(self, patient: bool) -> None:
        """A pipe says itself when its other end is dead."""

    def give_up(self) -> None:
        self.over(Fault(Known.UNKNOWN, "the server's process that was asked is gone"))

    async def body(self, limit: int | None = None) -> bytes:
        return b""

    async def events(self) -> list[ServerSent] | None:
        while not self._unread:
            if self._fault is not None:
                raise self._fault
            if self._over:
                return None
            await self._news.wait()
            self._news = anyio.Event()
        read = [ServerSent(data) for data in self._unread]
        self._unread.clear()
        self._unread_bytes = 0
        return read

    async def aclose(self, *, keep: bool = False) -> None:
        if self._child is not None:
            await self._child.closed(self, cancel=self.tells and not (keep or self._over))


class Child:
    """One process, and who waits for it to say something."""

    def __init__(self, process: ServerProcess) -> None:
        self.session = f"pipe-{secrets.token_hex(8)}"
        """The name of the session that is opened with it: it dies with it."""
        self.spoke = False
        self.is_deaf = False
        """It reads no more, though it has not ended."""
        self._process = process
        self._alive = True
        self._waiting: dict[str, PipeResponse] = {}
        """By the request's id, as text: servers may turn 7 into "7"."""
        self._beside: PipeResponse | None = None

    # --- to it -----------------------------------------------------------------------------------------

    async def tell(self, line: bytes) -> PipeResponse:
        """Send what has no response. Raises Fault."""
        try:
            self.is_deaf = self.is_deaf or not await self._process.write(line)
        except UnicodeError as exc:
            raise Fault(Known.NOT_SENT, f"this can't be said to the server: {exc}", again=False) from None
        if self.is_deaf:
            self._let_go()
            raise Fault(Known.NOT_SENT, _ENDED)
        return PipeResponse()

    def _let_go(self) -> None:
        """One that hears no more is of no use but to those whom it still answers."""
        if self.is_deaf and not self._waiting:
            self._process.hang_up()

    async def ask(self, line: bytes, message: JSON, *, modern: bool) -> PipeResponse:
        """Send a request. Raises Fault."""
        response = PipeResponse(self, message, modern=modern)
        if response.method == "initialize":
            response.headers = {_SESSION: self.session}
        self._waiting[str(response.wire_id)] = response
        try:
            await self.tell(line)
        except BaseException as exc:
            await self.closed(response, cancel=response.tells and not isinstance(exc, Fault))  # a part may be out
            raise
        return response

    def listen(self) -> PipeResponse:
        """What it says outside of all requests."""
        if self._beside is not None:
            self._beside.over()
        self._beside = PipeResponse(self)
        return self._beside

    async def closed(self, response: PipeResponse, *, cancel: bool) -> None:
        """Nobody reads this response any more. `cancel`: nor wants it."""
        if self._beside is response:
            self._beside = None
        waits = self._waiting.pop(str(response.wire_id), None)
        self._let_go()
        if cancel and waits is not None and self._alive:
            params = {"requestId": response.wire_id, "reason": "the caller no longer waits"}
            with anyio.move_on_after(1, shield=True):
                try:
                    await self.tell(encode({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}))
                except Fault as fault:
                    _log.info("a cancellation was not taken", reason=fault.reason)

    # --- from it ---------------------------------------------------------------------------------------

    def said(self, line: bytes) -> None:
        """Hand a message to who waits for it."""
        if not line.strip():
            return
        self.spoke = True
        try:
            said = pydantic_core.from_json(line)
        except ValueError as exc:
            said = str(exc)
        if not isinstance(said, dict):
            _log.warning("a line of the server's process is no message", line=repr(line[:200]))
            return
        reader = self._reader_of(said)
        if reader is None:
            _log.debug("a message of the server's process is for nobody", method=said.get("method"))
            return
        is_response = "method" not in said
        if is_response:
            del self._waiting[str(said["id"])]
        reader.put(line, last=is_response)

    def _reader_of(self, said: JSON) -> PipeResponse | None:
        if "method" not in said:
            return self._waiting.get(str(said.get("id")))
        params = said.get("params")
        params = params if isinstance(params, dict) else {}
        if said["method"] == "notifications/progress":
            return next((one for one in self._waiting.values() if one.token == params.get("progressToken")), None)
        meta = params.get("_meta")
        meta = meta if isinstance(meta, dict) else {}
        subscription = meta.get(SUBSCRIPTION_ID_META_KEY)
        if subscription is not None:
            return self._waiting.get(str(subscription))
        return self._asker(meta) if "id" in said else (self._beside or next(iter(self._waiting.values()), None))

    def _asker(self, meta: JSON) -> PipeResponse | None:
        """The call that a question belongs to. Milepost says which; else it is the only one there is, or none."""
        named = self._waiting.get(str(meta.get(META + "request")))
        if named is not None:
            return named
        calls = [one for one in self._waiting.values() if one.method == "tools/call"]
        return calls[0] if len(calls) == 1 else self._beside

    def died(self, reason: str, *, again: bool, hopeful: bool) -> None:
        """It will say nothing any more. `again`: as of a Fault, for the first contact too if `hopeful`.

        What `initialize` did, it did to the process alone.
        """
        self._alive = False
        waiting, self._waiting = self._waiting, {}
        for one in waiting.values():
            known = Known.NOT_SENT if one.method == "initialize" else Known.UNKNOWN
            one.over(Fault(known, reason, again=again and (hopeful or one.method not in _FIRST_CONTACT)))
        if self._beside is not None:
            self._beside.over()


class Pipe:
    """The endpoint of a command. An async context manager: leaving it stops the process."""

    silence_is_no = True

    def __init__(self, server: StdioServerParameters, policy: Policy) -> None:
        self.where = Where(place_of(server))
        self._server = server
        self._policy = policy
        self._child: Child | None = None
        self._starting = anyio.Lock()
        self._ever_spoke = False
        self._stillborn = 0
        self._group: TaskGroup

    async def __aenter__(self) -> Self:
        self._group = anyio.create_task_group()
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        self._group.cancel_scope.cancel()
        return await self._group.__aexit__(kind, exc, trace)

    async def send(
        self,
        method: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
        waiting: Waiting = nullcontext,
        silence: Silence | None = None,
    ) -> PipeResponse:
        """Send a message to the process, which is started if there is none and a request needs one."""
        message: JSON = {} if body is None else pydantic_core.from_json(body)
        session = headers.get(_SESSION)
        if session is not None and (self._child is None or self._child.is_deaf or session != self._child.session):
            raise SessionGone
        if method == "DELETE":
            return PipeResponse()
        if method == "GET":
            return PipeResponse() if self._child is None else self._child.listen()
        child = await self._running()
        if body is None or "method" not in message or "id" not in message:
            return await child.tell(body or b"")
        return await child.ask(body, message, modern=headers.get("mcp-protocol-version") in MODERN_PROTOCOL_VERSIONS)

    async def _running(self) -> Child:
        """The process, started if there is none. Raises Fault."""
        async with self._starting:
            if self._child is None or self._child.is_deaf:
                try:
                    return await self._group.start(self._host)  # type: ignore[no-any-return]  # anyio types it so
                except (OSError, ValueError) as exc:
                    reason = f"can't start {self._server.command!r}: {exc}"
                    raise Fault(Known.NOT_SENT, reason, again=self._ever_spoke) from exc
            return self._child

    async def _host(self, *, task_status: TaskStatus[Child]) -> None:
        """One process, from its start to its end. Raises what starting it does."""
        async with running(self._server, self._policy) as process, anyio.create_task_group() as group:
            child = self._child = Child(process)
            task_status.started(child)
            group.start_soon(process.watch)
            reason, again = f"{_ENDED} before it said anything: its stderr may say why", True
            try:
                async for line in process.lines():
                    child.said(line)
                    reason = _ENDED
            except TooLarge as exc:
                reason, again = str(exc), False
            finally:
                self._ever_spoke = self._ever_spoke or child.spoke
                self._stillborn += not self._ever_spoke
                if self._child is child:
                    self._child = None
                child.died(reason, again=again and self._stillborn < _STILLBORN, hopeful=self._ever_spoke)
                group.cancel_scope.cancel()
