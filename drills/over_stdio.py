"""The clients that start their server as a child process: both eras over a pipe.

When the child dies the host starts it anew and makes the same call again. A pipe acknowledges no answer; what shows
that one was taken is whatever comes after it.
"""

from __future__ import annotations

import asyncio
import time

from drills.history import text_of
from drills.over_http import HANDSHAKE, MODERN, enveloped
from drills.pipes import Broken, Lines, Message
from drills.servers import Child
from drills.talk import AGAIN, CAPABILITIES, CLIENT, Dialog, Script, Talk


class PipeTalk(Talk):
    """What both eras share: the child, and what is read from it."""

    def __init__(self, script: Script, child: Child) -> None:
        super().__init__(script)
        self.child = child
        self._number = 0

    async def converse(self) -> None:
        while not self.over:
            try:
                lines = await self._pipe()
                await self._converse(lines)
            except Broken:
                self._broke()
                self.forget()
                await asyncio.sleep(AGAIN)
                await self.child.buried()

    async def _pipe(self) -> Lines:
        """The child's pipe; a new child if there is none or it was killed."""
        child = self.child
        if child.running and child.lines is not None and child.lives[-1].up is not None:
            self._connected(child.pid, child.lives[-1])
            return child.lines
        lines = await child.start()
        self._connected(child.pid, child.lives[-1])
        await self._greet(lines)
        child.lives[-1].up = time.time()
        return lines

    async def _greet(self, lines: Lines) -> None:
        raise NotImplementedError

    async def _converse(self, lines: Lines) -> None:
        raise NotImplementedError

    async def _response(self, lines: Lines) -> Message:
        """Read up to the current request's response."""
        while True:
            message = await lines.read()
            if message.get("id") == self._number and "method" not in message:
                self._heard()
                return message
            self._said(lines, message)

    def _said(self, lines: Lines, message: Message) -> None:
        token = f"p{self._number}"
        if message.get("method") != "notifications/progress":
            self._heard()
        elif message["params"]["progressToken"] == token:
            self._heard()
            self.note_progress(message)

    def _begin(self) -> int:
        self._number = next(self.child.numbers)
        self.told.saw("requested")
        return self._number


class PipeHandshakeTalk(PipeTalk):
    era = "stdio handshake"

    async def _greet(self, lines: Lines) -> None:
        params = {"protocolVersion": HANDSHAKE, "capabilities": CAPABILITIES, "clientInfo": CLIENT}
        self._number = 0
        await lines.write({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
        while (await lines.read()).get("id") != 0:
            pass
        await lines.write({"jsonrpc": "2.0", "method": "notifications/initialized"})

    async def _converse(self, lines: Lines) -> None:
        number = self._begin()
        params = {"name": self.tool, "arguments": self.arguments, "_meta": {"progressToken": f"p{number}"}}
        await lines.write({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params})
        self.listening = True
        message = await self._response(lines)
        self._taken_for_acknowledged(None)
        self.finish(message)

    def _said(self, lines: Lines, message: Message) -> None:
        super()._said(lines, message)
        if "id" in message and "method" in message:
            self._asked(lines, message)

    def _asked(self, lines: Lines, message: Message) -> None:
        text = text_of(message["method"], message["params"])
        if text in self._acked:
            self.complain(f"asked again after its answer was taken: {text!r}")
        self._taken_for_acknowledged(text)
        dialog = Dialog(text, message["id"], self.reply_to(message["method"], message["params"]))
        self._dialogs[text] = dialog
        dialog.task = asyncio.get_running_loop().create_task(self._answer(lines, dialog))

    def _taken_for_acknowledged(self, but: str | None) -> None:
        """What comes after an answer shows that it was taken."""
        for text, dialog in list(self._dialogs.items()):
            if dialog.given and text != but:
                self.acknowledged(text, dialog.reply)
                del self._dialogs[text]

    async def _answer(self, lines: Lines, dialog: Dialog) -> None:
        await self.think()
        dialog.given = dialog.posting = True
        try:
            await lines.write({"jsonrpc": "2.0", "id": dialog.sent_as, "result": dialog.reply})
            self.on_answer_sent(self, self.child.pid)
        except Broken:
            return  # the reader notices it too
        await asyncio.sleep(0.01)
        dialog.posting = False


class PipeModernTalk(PipeTalk):
    era = "stdio modern"

    def __init__(self, script: Script, child: Child) -> None:
        super().__init__(script, child)
        self._state: str | None = None
        self._given: dict[str, Message] = {}
        self._texts: dict[str, str] = {}

    async def _greet(self, lines: Lines) -> None:
        meta = {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": CAPABILITIES,
            "io.modelcontextprotocol/clientInfo": CLIENT,
        }
        await lines.write({"jsonrpc": "2.0", "id": 0, "method": "server/discover", "params": {"_meta": meta}})
        while (await lines.read()).get("id") != 0:
            pass

    async def _converse(self, lines: Lines) -> None:
        while not self.over:
            body = enveloped(self._begin(), self.tool, self.arguments, self._state, self._given)
            await lines.write(body)
            self.listening = True
            if self._given:
                self.on_answer_sent(self, self.child.pid)
            await self._take(lines, await self._response(lines))

    async def _take(self, lines: Lines, message: Message) -> None:
        result = message.get("result") or {}
        self.listening = False
        for key, reply in self._given.items():
            self.acknowledged(self._texts[key], reply)
        self._given = {}
        if result.get("resultType") != "input_required":
            self.finish(message)
            return
        self._state = result.get("requestState")
        asked: dict[str, Message] = result.get("inputRequests") or {}
        self._texts = {key: text_of(one["method"], one["params"]) for key, one in asked.items()}
        for text in self._texts.values():
            if text in self._acked:
                self.complain(f"asked again after its answer was acknowledged: {text!r}")
        given = {key: self.reply_to(one["method"], one["params"]) for key, one in asked.items()}
        self._dialogs = {key: Dialog(key, key, reply) for key, reply in given.items()}
        await self.think()
        self._dialogs.clear()
        self._given = given
