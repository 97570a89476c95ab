"""The HTTP clients of both eras, and the doors that they come in by."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from drills.history import Reading, text_of
from drills.pipes import Broken, Dropped, Message, Response, Sse, request
from drills.servers import Life, Server
from drills.talk import AGAIN, CAPABILITIES, CLIENT, Dialog, Script, Talk

BOTH = "application/json, text/event-stream"
HANDSHAKE, MODERN = "2025-11-25", "2026-07-28"


BUSY = (502, 503, 504)
"""What a server that drains, or a balancer without one, says: come again."""


def outcome(status: int) -> dict[str, Any]:
    """What an answer says of its request: a refusal had no effect; a 502 comes from one who does not know."""
    unknown = status >= 500 and status != 503
    return {"status": status, "type": "ok" if status < 300 else "info" if unknown else "fail"}


class Door(Protocol):
    """Where a client knocks: a server, or a balancer before several."""

    port: int
    lives: list[Life]

    @property
    def pid(self) -> int: ...


class Way(Protocol):
    """How a client finds a door."""

    async def choose(self, rng: random.Random) -> Door:
        """Raises Broken after a pause where there is none."""
        ...


@dataclass
class Front:
    """The one door of a balancer. Which process is behind it, no client knows."""

    port: int
    pid: int = 0
    lives: list[Life] = field(default_factory=lambda: [Life(0, 0.0)])

    async def choose(self, rng: random.Random) -> Front:
        return self


class Doors:
    """The servers that a client may go to: any will do."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self.servers = list(servers)

    async def choose(self, rng: random.Random) -> Server:
        """One that is up, as a load balancer would. Raises Broken after a pause where none is."""
        up = [server for server in self.servers if server.running and not server.stopping and server.lives[-1].up]
        if not up:
            await asyncio.sleep(AGAIN)
            raise Broken("no server is up")
        return rng.choice(up)


class HttpTalk(Talk):
    """What both eras share."""

    def __init__(self, script: Script, doors: Way, *, patience: float = 60.0) -> None:
        super().__init__(script)
        self.doors = doors
        self.patience = patience
        """Seconds of silence after which this client takes the connection for dead."""

    async def _choose(self) -> Door:
        server = await self.doors.choose(self.script.rng)
        self._connected(server.pid, server.lives[-1])
        return server


class HandshakeTalk(HttpTalk):
    """2025-11-25: a session, answers by POST, each kept until it is acknowledged."""

    era = "handshake"

    def __init__(self, script: Script, doors: Way, *, patience: float = 60.0) -> None:
        super().__init__(script, doors, patience=patience)
        self.session: str | None = None
        self._request = 0
        self._last: str | None = None
        """The last event id of the current request's stream."""
        self._retry = 0.0

    async def converse(self) -> None:
        way = "call"
        self._request = next(self._ids)
        while not self.over:
            try:
                if self.session is None:
                    await self._open_session()
                await self._listen(way)
                way = "get" if self._last else "call"
                self.listening = False
                await asyncio.sleep(self._retry)
            except Broken as broken:
                self._broke(dropped=isinstance(broken, Dropped))
                await asyncio.sleep(AGAIN)
                way = self._way_back()

    def _way_back(self) -> str:
        """How this client comes back: all of these are correct."""
        drawn = self.script.rng.choices(("get", "call", "new id", "new session"), weights=(45, 25, 15, 15))[0]
        if drawn in ("new id", "new session"):
            self._request = next(self._ids)
            self._last = None
        if drawn == "new session":
            self.forget()
            self.session = None
        return "get" if self._last and drawn == "get" else "call"

    # --- the session ---------------------------------------------------------------------------------

    def _headers(self) -> dict[str, str]:
        headers = {"accept": BOTH, "content-type": "application/json"}
        if self.session is not None:
            headers |= {"mcp-session-id": self.session, "mcp-protocol-version": HANDSHAKE}
        return headers

    async def _open_session(self) -> None:
        params = {"protocolVersion": HANDSHAKE, "capabilities": CAPABILITIES, "clientInfo": CLIENT}
        body = {"jsonrpc": "2.0", "id": next(self._ids), "method": "initialize", "params": params}
        server = await self._choose()
        with self.operation("initialize") as told:
            async with request(server.port, "POST", self._headers(), body, patience=self.patience) as answer:
                await answer.body()
                told.update(outcome(answer.status))
                if answer.status != 200:
                    raise Broken(f"initialize got {answer.status}")
                session = answer.headers["mcp-session-id"]
        headers = {**self._headers(), "mcp-session-id": session, "mcp-protocol-version": HANDSHAKE}
        ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        async with request(server.port, "POST", headers, ready, patience=self.patience) as answer:
            await answer.body()
        self.session = session

    # --- the stream ----------------------------------------------------------------------------------

    async def _listen(self, way: str) -> None:
        """Read one connection's worth of the request's stream."""
        server = await self._choose()
        headers, body = self._headers(), None
        if way == "get":
            headers["last-event-id"] = str(self._last)
        else:
            meta = {"progressToken": f"p{self._request}"}
            params = {"name": self.tool, "arguments": self.arguments, "_meta": meta}
            body = {"jsonrpc": "2.0", "id": self._request, "method": "tools/call", "params": params}
        opened = next(self._order)
        method = "GET" if way == "get" else "POST"
        with self.operation(way, id=self._request, after=self._last) as told:
            async with request(server.port, method, headers, body, patience=self.patience) as answer:
                told.update(outcome(answer.status))
                if answer.status != 200:
                    await self._refused(answer, f"{method} of a stream")
                    return
                self.listening = True
                self._taken_up()
                async with dropping(self._drops_after()):
                    await self._read(answer, opened)

    async def _refused(self, answer: Response, what: str) -> None:
        body = (await answer.body())[:300]
        if answer.status in BUSY:
            raise Broken("busy, or draining")
        self.complain(f"{what} got {answer.status}: {body!r}")
        await asyncio.sleep(0.5)
        self._last = None
        if answer.status == 404:
            self.session = None
        raise Broken(f"got {answer.status}")

    async def _read(self, answer: Response, opened: int) -> None:
        reading: Reading | None = None
        self.told.saw("requested")
        shown: set[str] = set()
        async for event in answer.events():
            self._retry = event.retry if event.retry is not None else self._retry
            reading = self._note(event, reading)
            if not event.data:
                continue
            self._heard(float(event.id.rpartition(".")[2]) if event.id is not None else None)
            self._take(event, opened, shown)
            if self.over:
                return

    def _note(self, event: Sse, reading: Reading | None) -> Reading | None:
        """Keep the place, and what was read there."""
        if event.id is None:
            return reading
        stream, _, n = event.id.rpartition(".")
        if reading is None:
            after = int(self._last.rpartition(".")[2]) if self._last and self._last.startswith(stream) else 0
            self.told.saw("opened", stream, after if event.data else int(n))
            reading = self.told.readings[-1]
        if event.data:
            self.told.saw("read", int(n), _decoded(event))
        self._last = event.id
        return reading

    def _take(self, event: Sse, opened: int, shown: set[str]) -> None:
        message = _decoded(event)
        method = message.get("method")
        if method is None:
            if message.get("id") == self._request:
                self.finish(message)
            else:
                self.complain(f"a response to nothing that was asked: id {message.get('id')!r}")
        elif "id" in message:
            self._asked(message, opened, shown)
        elif method == "notifications/progress":
            self.note_progress(message)
        elif method == "notifications/cancelled":
            self._withdrawn(message["params"]["requestId"])

    def _withdrawn(self, sent_as: str) -> None:
        for dialog in list(self._dialogs.values()):
            if dialog.sent_as == sent_as and not dialog.given and dialog.task is not None:
                dialog.task.cancel()
                del self._dialogs[dialog.text]

    # --- answers ---------------------------------------------------------------------------------------

    def _asked(self, message: Message, opened: int, shown: set[str]) -> None:
        text = text_of(message["method"], message["params"])
        acked = self._acked.get(text)
        if acked is not None:
            # A connection that was opened before the answer was acknowledged may still show it once.
            if acked > opened and text not in shown:
                return
            self.complain(f"asked again after its answer was acknowledged: {text!r}")
        shown.add(text)
        known = self._dialogs.get(text)
        dialog = Dialog(text, message["id"], self.reply_to(message["method"], message["params"]))
        if known is not None:
            dialog.given = known.given
            if known.task is not None:
                known.task.cancel()
        self._dialogs[text] = dialog
        dialog.task = asyncio.get_running_loop().create_task(self._answer(dialog))

    async def _answer(self, dialog: Dialog) -> None:
        """Think, answer, and keep the answer until it is acknowledged."""
        headers = self._headers()
        if not dialog.given:
            await self.think()
        dialog.given = True
        body = {"jsonrpc": "2.0", "id": dialog.sent_as, "result": dialog.reply}
        while True:
            try:
                if await self._post(dialog, body, headers):
                    return
            except Broken:
                pass
            finally:
                dialog.posting = False
            await asyncio.sleep(AGAIN)

    async def _post(self, dialog: Dialog, body: Message, headers: dict[str, str]) -> bool:
        server = await self.doors.choose(self.script.rng)
        pid = server.pid

        def sent() -> None:
            dialog.posting = True
            self.on_answer_sent(self, pid)

        with self.operation("answer", to=dialog.text, reply=dialog.reply) as told:
            async with request(server.port, "POST", headers, body, patience=self.patience, sent=sent) as answer:
                said = await answer.body()
            told.update(outcome(answer.status))
        if answer.status in BUSY:
            return False
        if answer.status == 202:
            self.acknowledged(dialog.text, dialog.reply)
        else:
            self.complain(f"the answer to {dialog.text!r} got {answer.status}: {said[:300]!r}")
        return answer.status < 500


class ModernTalk(HttpTalk):
    """2026-07-28: every round is a request of its own, with the last state and the answers."""

    era = "modern"

    def __init__(self, script: Script, doors: Way, *, patience: float = 60.0) -> None:
        super().__init__(script, doors, patience=patience)
        self._state: str | None = None
        self._asked: dict[str, Message] = {}
        self._given: dict[str, Message] = {}

    async def converse(self) -> None:
        while not self.over:
            try:
                message = await self._round()
            except Broken as broken:
                self._broke(dropped=isinstance(broken, Dropped))
                self._maybe_forget()
                await asyncio.sleep(AGAIN)
                continue
            await self._take(message)

    def _maybe_forget(self) -> None:
        """Now and then the client itself is started anew, and makes the bare call again."""
        if self.script.rng.random() < 0.2:
            self._state, self._asked, self._given = None, {}, {}

    async def _round(self) -> Message:
        server = await self._choose()
        number = next(self._ids)
        body = enveloped(number, self.tool, self.arguments, self._state, self._given)
        headers = {
            "accept": BOTH,
            "content-type": "application/json",
            "mcp-protocol-version": MODERN,
            "mcp-method": "tools/call",
            "mcp-name": self.tool,
        }
        dialogs = {key: Dialog(key, key, reply, given=True) for key, reply in self._given.items()}
        self._dialogs.update(dialogs)

        def sent() -> None:
            for dialog in dialogs.values():
                dialog.posting = True
            if dialogs:
                self.on_answer_sent(self, server.pid)

        try:
            with self.operation("round", id=number, replies=self._given) as told:
                async with request(server.port, "POST", headers, body, patience=self.patience, sent=sent) as answer:
                    told.update(outcome(answer.status))
                    self.listening = answer.status not in BUSY
                    async with dropping(self._drops_after()):
                        return await self._response(answer, number)
        finally:
            for key in dialogs:
                self._dialogs.pop(key, None)

    async def _response(self, answer: Response, number: int) -> Message:
        if answer.status in BUSY:
            await answer.body()
            raise Broken("busy, or draining")
        self._taken_up()
        if not answer.is_stream:
            message = await answer.json()
            self._heard(self._furthest + 0.01)
            if answer.status != 200:
                self.complain(f"a round got {answer.status}: {message}")
                self._state, self._given = None, {}
                await asyncio.sleep(0.5)
                raise Broken(f"got {answer.status}")
            return message
        self.told.saw("requested")
        async for event in answer.events():
            if not event.data:
                continue
            message = _decoded(event)
            if message.get("method") == "notifications/progress":
                mark = "message" in message["params"]  # a heartbeat has none
                self._heard(message["params"]["progress"] if mark else None)
                self.note_progress(message)
            elif "method" not in message and message.get("id") == number:
                self._heard(self._furthest + 0.01)
                return message
        raise Broken("the stream ended without a response")

    async def _take(self, message: Message) -> None:
        """A round's response: what it carried is acknowledged by it."""
        result = message.get("result") or {}
        self.listening = False
        for key, reply in self._given.items():
            self.acknowledged(self._text(key), reply)
        self._given = {}
        if result.get("resultType") != "input_required":
            self.finish(message)
            return
        self._state = result.get("requestState")
        self._asked = result.get("inputRequests") or {}
        given = {}
        for key, asked in self._asked.items():
            text = self._text(key)
            if text in self._acked:
                self.complain(f"asked again after its answer was acknowledged: {text!r}")
            given[key] = self.reply_to(asked["method"], asked["params"])
        if given:
            await self._think_over(given)
        else:
            await asyncio.sleep(AGAIN)

    def _text(self, key: str) -> str:
        return text_of(self._asked[key]["method"], self._asked[key]["params"])

    async def _think_over(self, given: dict[str, Message]) -> None:
        self._dialogs = {key: Dialog(key, key, reply) for key, reply in given.items()}
        await self.think()
        self._dialogs.clear()
        self._given = given


@asynccontextmanager
async def dropping(after: float | None) -> AsyncIterator[None]:
    """Give up on what happens inside after so many seconds. Raises Dropped."""
    try:
        async with asyncio.timeout(after):
            yield
    except TimeoutError:
        raise Dropped("the client closed its connection") from None


def enveloped(number: int, tool: str, arguments: Message, state: str | None, given: dict[str, Message]) -> Message:
    """A call of 2026-07-28 with all that it must carry."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": CAPABILITIES,
        "io.modelcontextprotocol/clientInfo": CLIENT,
        "io.modelcontextprotocol/logLevel": "info",
        "progressToken": f"p{number}",
    }
    params: Message = {"name": tool, "arguments": arguments, "_meta": meta}
    if state is not None:
        params["requestState"] = state
    if given:
        params["inputResponses"] = given
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}


def _decoded(event: Sse) -> Message:
    decoded: Message = json.loads(event.data)
    return decoded
