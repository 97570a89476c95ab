"""Where the questions of a server arrive: each is answered from the file, else by the person, else left waiting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import anyio
from mcp.client import ClientRequestContext
from mcp_types import (
    INVALID_PARAMS,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequestFormParams,
    ElicitRequestParams,
    ElicitResult,
    ErrorData,
    ListRootsResult,
    Root,
    TextContent,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from milepost.calling import printable
from milepost.calling.answers import Answers, Asked, Unfitting
from milepost.calling.forms import Field, Unfit, fields_of
from milepost.calling.person import Leave, Person, Said
from milepost.calling.screen import Screen
from milepost.calling.terminal import Hangup

QUESTION_META: Final = "milepost/question"
"""Where a Milepost server says a question's key in its run; the same however often it is sent."""
_DECLINED: Final = -1
"""The code that the specification gives a person's refusal of sampling (client/sampling)."""
_TEXTS: Final = 200
"""Parts of a conversation that are shown to who writes in a model's place."""

Stop = Callable[[str, bool], None]
"""Leaves the call waiting. (why, whether that is a mistake to be mended)"""


class Desk:
    """The callbacks of one client. `person`: None where nobody can be asked."""

    def __init__(self, answers: Answers, person: Person | None, screen: Screen, stop: Stop) -> None:
        self._answers = answers
        self._person = person
        self._screen = screen
        self._stop = stop
        self._open = 0
        self._settled = anyio.Event()
        self.closing = False
        """The call is being ended, and its questions with it."""
        self.refusing = False
        """Whatever is asked from now on is answered with "cancel": the person wants the call to end."""
        self._refuse = anyio.Event()

    def refuse(self) -> None:
        """Answer "cancel" to what is asked now, and to whatever follows."""
        self.refusing = True
        self._refuse.set()

    @property
    def is_asking(self) -> bool:
        """Whether a person is being asked something, or waits for their turn to be."""
        return self._open > 0

    async def settled(self) -> None:
        """Wait until nobody is being asked anything."""
        while self._open:
            self._settled = anyio.Event()
            await self._settled.wait()

    # --- the SDK's callbacks ---

    async def elicited(self, context: ClientRequestContext, params: ElicitRequestParams) -> ElicitResult | ErrorData:
        fields: Sequence[Field] | None = None
        if isinstance(params, ElicitRequestFormParams):
            try:
                fields = fields_of(params.requested_schema)
            except Unfit as reason:
                self._screen.warn(f"the server's question {params.message!r} can't be shown: {reason}")
                return ErrorData(code=INVALID_PARAMS, message=f"this question can't be shown: {reason}")
        said = await self._answer(Asked(_keys(context), params.message, fields), params)
        content = dict(said.content or {}) if said.action == "accept" and fields is not None else None
        return ElicitResult(action=said.action, content=content)

    async def sampled(
        self, context: ClientRequestContext, params: CreateMessageRequestParams
    ) -> CreateMessageResult | ErrorData:
        texts = _texts(params)
        said = await self._answer(Asked(_keys(context), " ".join(text for _, text in texts), of_model=True), params)
        if said.action == "accept":
            return _message(said.text, "endTurn")
        if context.session.protocol_version in MODERN_PROTOCOL_VERSIONS:
            return _message("", "declined")  # a round of that era can carry no error; one would end the whole call
        return ErrorData(code=_DECLINED, message="The user rejected the sampling request")

    async def rooted(self, context: ClientRequestContext) -> ListRootsResult:
        """The working directory: only declared where it was allowed."""
        here = Path.cwd()
        self._screen.say(f"told the server the working directory, {here}")
        return ListRootsResult(roots=[Root(uri=here.as_uri(), name=here.name or str(here))])

    # --- who answers ---

    async def _answer(self, asked: Asked, params: Any) -> Said:
        if self.refusing:
            return Said("cancel")
        try:
            if (said := self._answers.for_question(asked)) is not None:
                self._screen.say(f"answered from the file: {asked.text}")
                return said
        except Unfitting as reason:
            if self._person is None:
                return await self._leave(str(reason), mistake=True)
            self._screen.warn(str(reason))
        if self._person is None:
            return await self._leave(f"nobody here can answer {asked.text!r}")
        return await self._ask(self._person, asked, params)

    async def _ask(self, person: Person, asked: Asked, params: Any) -> Said:
        self._open += 1
        try:
            return await self._unless_refused(person, asked, params)
        except Leave:
            return await self._leave("you left its question for later")
        except Hangup:
            return await self._leave("the terminal is gone")
        except anyio.get_cancelled_exc_class():
            if not self.closing:
                self._screen.say("this question was withdrawn: it was answered elsewhere, or is no longer needed")
            raise
        finally:
            self._open -= 1
            self._settled.set()

    async def _unless_refused(self, person: Person, asked: Asked, params: Any) -> Said:
        """The person's answer, or "cancel" once the call is to end."""
        said, error = Said("cancel"), None
        async with anyio.create_task_group() as both:

            async def refused() -> None:
                await self._refuse.wait()
                both.cancel_scope.cancel()

            both.start_soon(refused)
            try:
                said = await _put_to(person, asked, params)
            except (Leave, Hangup) as gone:
                error = gone
            both.cancel_scope.cancel()
        if error is not None:
            raise error
        return said

    async def _leave(self, why: str, *, mistake: bool = False) -> Said:
        """Let the call wait; never returns, for the call is about to be cut."""
        self._stop(why, mistake)
        await anyio.sleep_forever()
        raise AssertionError("unreachable")


async def _put_to(person: Person, asked: Asked, params: Any) -> Said:
    if asked.of_model:
        return await person.write(_texts(params), most_tokens=params.max_tokens)
    if asked.fields is None:
        return await person.visit(asked.text, params.url)
    return await person.fill_in(asked.text, asked.fields)


def _message(text: str, stop_reason: str) -> CreateMessageResult:
    content = TextContent(type="text", text=text)
    return CreateMessageResult(role="assistant", content=content, model="a person", stop_reason=stop_reason)


def _keys(context: ClientRequestContext) -> list[str]:
    meta: Any = context.meta or {}
    key = meta.get(QUESTION_META)
    return [str(each) for each in (key, context.request_id) if each is not None]


def _texts(params: CreateMessageRequestParams) -> list[tuple[str, str]]:
    """(who, what) of a conversation; what is no text is named by its type."""
    texts = [("system", params.system_prompt)] if params.system_prompt else []
    for message in params.messages[:_TEXTS]:
        blocks = message.content if isinstance(message.content, list) else [message.content]
        texts += [(message.role, _block(each)) for each in blocks[:_TEXTS]]
    return texts


def _block(block: Any) -> str:
    return (
        block.text if isinstance(block, TextContent) else f"[{printable.line(getattr(block, 'type', 'something'), 40)}]"
    )
