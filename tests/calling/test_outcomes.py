"""What a call's end means for its exit code."""

from __future__ import annotations

from typing import Any

import pytest
from mcp import MCPError
from mcp_types import CallToolResult
from pydantic import ValidationError

from milepost.calling.outcomes import Code, Outcome, of_error, of_result, worst
from milepost.client import (
    CircuitOpen,
    JournalInUse,
    NotSent,
    OutcomeUnknown,
    Refused,
    ServerUnavailable,
    TimedOut,
    Unauthorized,
)
from milepost.core.errors import ConfigurationError, StoreError


def a_validation_error() -> ValidationError:
    with pytest.raises(ValidationError) as wrong:
        CallToolResult.model_validate({"content": 5})
    return wrong.value


PAGES: Any = {"elicitations": [{"url": "https://pay.example"}, {"url": 5}, 7]}


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (OutcomeUnknown("the stream ended"), Code.UNKNOWN, "what came of the call is not known: the stream ended"),
        (NotSent("no route"), Code.REFUSED, "nothing was sent: no route"),
        (CircuitOpen("a rest"), Code.REFUSED, "nothing was sent: a rest"),
        (Refused("too large"), Code.REFUSED, "the server refused: too large"),
        (Unauthorized("no token"), Code.REFUSED, "refused: no token; give a token that opens it by --bearer-env"),
        (TimedOut("it was late", known="not sent"), Code.REFUSED, "nothing was done: it was late"),
        (TimedOut("it was late", known="unknown"), Code.UNKNOWN, "no answer: it was late"),
        (ServerUnavailable("can't be reached"), Code.REFUSED, "can't be reached"),
        (JournalInUse("driven elsewhere"), Code.REFUSED, "driven elsewhere"),
        (ConfigurationError("no such tool"), Code.REFUSED, "no such tool"),
        (StoreError("the journal is full"), Code.UNKNOWN, "the journal is full"),
        (TimeoutError(), Code.UNKNOWN, "took longer than it may"),
        (ConnectionError("reset"), Code.UNKNOWN, "reset"),
        (a_validation_error(), Code.UNKNOWN, "none that the protocol knows"),
        (MCPError(-32603, "it broke"), Code.TOOL_ERROR, "the server answered with an error: it broke (-32603)"),
        (MCPError(-32001, "timed out"), Code.UNKNOWN, "no answer: timed out"),
        (MCPError(-32042, "pay first", PAGES), Code.REFUSED, "then call again (pay first): https://pay.example"),
        (MCPError(-32042, "pay first", "odd"), Code.REFUSED, "none that it names"),
        (ExceptionGroup("g", [ExceptionGroup("h", [NotSent("no route")])]), Code.REFUSED, "nothing was sent"),
    ],
)
def test_each_error_has_its_code_and_its_words(error: Exception, code: Code, words: str) -> None:
    outcome = of_error(error, called=True)
    assert outcome is not None
    assert outcome.code is code
    assert words in outcome.said


def test_before_the_call_went_out_nothing_is_unknown() -> None:
    for error in (TimeoutError(), MCPError(-32001, "timed out"), MCPError(-32603, "it broke")):
        outcome = of_error(error, called=False)
        assert outcome is not None
        assert outcome.code is Code.REFUSED


def test_a_bug_is_no_outcome() -> None:
    assert of_error(KeyError("x"), called=True) is None
    assert of_error(ExceptionGroup("g", [AttributeError("x")]), called=True) is None


def test_a_result_is_0_and_a_tools_error_1() -> None:
    assert of_result(CallToolResult(content=[])).code == 0
    assert of_result(CallToolResult(content=[], is_error=True)).code == 1


def test_of_several_calls_the_worst_counts() -> None:
    assert worst([]) == 0
    assert worst([Outcome(Code.RESULT), Outcome(Code.UNKNOWN), Outcome(Code.TOOL_ERROR)]) == 4
