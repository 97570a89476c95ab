"""The rounds of a modern call: ask what the server asks, keep what is answered, send the call again with it.

An answer is recorded before it is sent, and counts as taken only when the server has answered the round. A round that
fails leaves state and answers where they are, so going on later asks nobody twice.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, Protocol, TypeVar

import anyio
from mcp import MCPError
from mcp.client import ClientRequestContext
from mcp.client.session import ClientSession
from mcp_types import (
    INVALID_PARAMS,
    CreateMessageResult,
    CreateMessageResultWithTools,
    ElicitResult,
    ErrorData,
    InputRequest,
    InputRequiredResult,
    InputResponse,
    InputResponses,
    ListRootsResult,
)
from pydantic import TypeAdapter

from milepost.client.errors import OutcomeUnknown
from milepost.client.events import Answered, Event, Question
from milepost.client.interaction import JSON, META, Asked, Interaction
from milepost.client.policy import Policy

T = TypeVar("T")


class NotAnswered(MCPError):
    """This side's own callback said no to a question. Not the server's word, so what others answered is kept."""


Retry = Callable[[InputResponses | None, str | None], Awaitable[T | InputRequiredResult]]

_REQUEST: Final[TypeAdapter[InputRequest]] = TypeAdapter(InputRequest)
_RESPONSES: Final[Mapping[str, TypeAdapter[Any]]] = {
    "elicitation/create": TypeAdapter(ElicitResult),
    "sampling/createMessage": TypeAdapter(CreateMessageResultWithTools | CreateMessageResult),
    "roots/list": TypeAdapter(ListRootsResult),
}


class Desk(Protocol):
    """What the rounds need of the client."""

    policy: Policy

    @property
    def session(self) -> ClientSession: ...

    async def record(self, interaction: Interaction) -> None: ...

    def tell(self, event: Event) -> None: ...

    async def may_start_over(self, interaction: Interaction) -> bool: ...


async def drive(desk: Desk, call: Interaction, first: T | InputRequiredResult, retry: Retry[T], most: int) -> T:
    """Go on until there is a result. `most`: rounds of questions.

    Raises OutcomeUnknown past it, for who knows what was done between them; and what `retry` raises.
    """
    call.in_rounds = True
    try:
        return await _through(desk, call, first, retry, most)
    finally:
        call.in_rounds = False


async def _through(desk: Desk, call: Interaction, first: T | InputRequiredResult, retry: Retry[T], most: int) -> T:
    result, asked, waits = first, 0, 0
    while isinstance(result, InputRequiredResult):
        state = result.request_state
        if result.input_requests:
            asked, waits = asked + 1, 0
            if asked > most:
                text = f"{call.name} asked in more than {most} rounds (input_required_max_rounds)"
                raise OutcomeUnknown(text, call_id=call.call_id)
            responses: InputResponses | None = await answer(desk, call, result)
        else:
            waits += 1
            responses = None
            call.round(state, {})
            await desk.record(call)
            await anyio.sleep(_pause(desk.policy, waits, result))
        try:
            result = await retry(responses, state)
        except MCPError as exc:
            if not _is_stale(exc):
                raise
            call.started_over()
            call.may_be_made_anew = call.keeps_answers  # by its caller, who may then ask for it with those answers
            if not await desk.may_start_over(call):
                raise
            call.may_be_made_anew = False
            result = await retry(None, None)
        await _taken(desk, call)
    return result


def _pause(policy: Policy, waits: int, result: InputRequiredResult) -> float:
    """Before asking "done yet?" again: what the server says (Milepost), else a doubling wait."""
    said = (result.meta or {}).get(META + "retry_after")
    if isinstance(said, int | float) and not isinstance(said, bool) and said >= 0:
        return min(float(said), policy.max_retry_after)
    ceiling = min(policy.poll_max, policy.poll_first * 2.0 ** min(waits - 1, 30))
    return ceiling * (0.5 + random.random() / 2)  # noqa: S311  jitter


def _is_stale(exc: MCPError) -> bool:
    """The server takes the state no more (expired, or sealed by a process that is gone): it did nothing with it."""
    reason = exc.data.get("reason") if isinstance(exc.data, Mapping) else None
    return exc.code == INVALID_PARAMS and (reason == "invalid_request_state" or "requestState" in exc.message)


async def answer(desk: Desk, call: Interaction, result: InputRequiredResult) -> InputResponses:
    """Answers to a round: kept ones as they are, the others from the caller's callbacks."""
    many = len(result.input_requests or {})
    if many > desk.policy.max_open_questions:
        text = f"{call.name} asks {many} questions at once: more than Policy.max_open_questions"
        raise OutcomeUnknown(text, call_id=call.call_id)
    requests = {
        key: one.model_dump(by_alias=True, mode="json", exclude_none=True)
        for key, one in (result.input_requests or {}).items()
    }
    asked = call.round(result.request_state, requests)
    await desk.record(call)
    return await _answers(desk, call, asked)


async def answer_kept(desk: Desk, call: Interaction) -> InputResponses | None:
    """The same for a round that an earlier process, or an earlier try, left open."""
    if not call.round_keys:
        return None
    return await _answers(desk, call, {key: call.asked[ours] for key, ours in call.round_keys.items()})


async def _answers(desk: Desk, call: Interaction, asked: Mapping[str, Asked]) -> InputResponses:
    """Raises what the first callback that failed did, once all others have ended: no form is torn from its person."""
    failed: list[Exception] = []
    async with anyio.create_task_group() as group:
        for key, one in asked.items():
            if "result" not in (one.reply or {}):
                group.start_soon(_ask, desk, call, key, one, failed)
    if failed:
        raise failed[0]
    return {key: _RESPONSES[one.method].validate_python((one.reply or {})["result"]) for key, one in asked.items()}


async def _ask(desk: Desk, call: Interaction, key: str, asked: Asked, failed: list[Exception]) -> None:
    names: dict[str, Any] = {"call_id": call.call_id, "trace_id": call.trace_id, "key": asked.key}
    desk.tell(Question(**names, method=asked.method, message=asked.message, params=asked.params))
    try:
        asked.reply = {"result": _dumped(await _reply(desk, key, asked))}
        await desk.record(call)
    except Exception as exc:
        failed.append(exc)
    else:
        desk.tell(Answered(**names, acknowledged=False))


async def _reply(desk: Desk, key: str, asked: Asked) -> InputResponse:
    request = _REQUEST.validate_python({"method": asked.method, "params": asked.params})
    context = ClientRequestContext(session=desk.session, request_id=key, meta=asked.params.get("_meta"))
    response: InputResponse | ErrorData = await desk.session.dispatch_input_request(context, request)
    if isinstance(response, ErrorData):
        raise NotAnswered.from_error_data(response)
    return response


def _dumped(response: InputResponse) -> JSON:
    return response.model_dump(by_alias=True, mode="json", exclude_none=True)


async def _taken(desk: Desk, call: Interaction) -> None:
    for asked in call.taken():
        desk.tell(Answered(call_id=call.call_id, trace_id=call.trace_id, key=asked.key, acknowledged=True))
