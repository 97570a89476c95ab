"""Rendering: a run's events as one stream's messages."""

from __future__ import annotations

from typing import Any

import pytest

from milepost.core.records import Event, EventKind, Question, Stream
from milepost.engine.hub import Glimpse
from milepost.wire.streams import (
    Rendering,
    as_sent,
    can_ask,
    farewell,
    frame,
    parse_sending_id,
    priming,
    sending_id,
)

STREAM = "AAAABBBBCCCCDDDD"
FORM = {"elicitation": {"form": {}}}


def rendering(*, token: Any = "t", capabilities: Any = FORM, attached: bool = False) -> Rendering:  # noqa: S107
    stream = Stream(STREAM, "run-1", 7, progress_token=token, attached=attached)
    return Rendering(stream, capabilities, dict, trace_id="ab" * 16, started_at=5.0)


def event(n: int, kind: EventKind, **body: Any) -> Event:
    return Event("run-1", n, kind, body)


def question(number: int = 1, method: str = "elicitation/create", **params: Any) -> Question:
    return Question("run-1", number, method, {"message": "Which?", **params}, "digest")


def test_progress_never_falls_and_needs_a_token() -> None:
    view = rendering()
    shown = [
        view.message(event(1, EventKind.PROGRESS, progress=1.0, total=3.0), {}),
        view.message(event(2, EventKind.PROGRESS, progress=1.0, total=3.0), {}),
        view.glimpse(Glimpse(0.5)),
        view.glimpse(Glimpse(1.5, 3.0, "more")),
    ]
    assert [one and one["params"]["progress"] for one in shown] == [1.0, None, None, 1.5]
    assert rendering(token=None).message(event(1, EventKind.PROGRESS, progress=1.0), {}) is None


def test_a_token_of_zero_is_a_token() -> None:
    message = rendering(token=0).message(event(1, EventKind.PROGRESS, progress=1.0), {})
    assert message is not None
    assert message["params"]["progressToken"] == 0


def test_a_heartbeat_is_a_small_step_that_any_real_one_overtakes() -> None:
    view = rendering()
    view.message(event(1, EventKind.PROGRESS, progress=1.0, total=3.0), {})
    beats = [view.progress.beat(), view.progress.beat()]
    assert [beat and beat["params"]["progress"] for beat in beats] == [1.000001, 1.000002]
    assert view.glimpse(Glimpse(1.1)) is not None
    assert rendering(token=None).progress.beat() is None


def test_a_stage_is_named_by_its_progress() -> None:
    view = rendering()
    begun = view.message(event(1, EventKind.STAGE, stage="booking", mark="begin", progress=0.0, total=2.0), {})
    done = view.message(event(2, EventKind.STAGE, stage="booking", mark="end", progress=1.0, total=2.0), {})
    assert begun is not None
    assert begun["params"] == {
        "progressToken": "t", "progress": 0.0, "total": 2.0, "message": "booking",
        "_meta": {"milepost/stage": "booking", "milepost/mark": "begin"},
    }  # fmt: skip
    assert done is not None
    assert done["params"]["message"] == "booking: done"
    assert done["params"]["_meta"] == {"milepost/stage": "booking", "milepost/mark": "end"}
    moved = view.message(event(3, EventKind.PROGRESS, progress=1.5, total=2.0), {})
    assert moved is not None
    assert "_meta" not in moved["params"]


def test_a_question_that_is_open_goes_out_under_an_id_made_of_the_events() -> None:
    message = rendering().message(event(4, EventKind.QUESTION, question=1), {1: question()})
    assert message is not None
    assert message["id"] == f"q-{STREAM}.4"
    assert message["method"] == "elicitation/create"


def test_a_question_that_is_closed_or_cannot_be_asked_is_left_out() -> None:
    asked = event(4, EventKind.QUESTION, question=1)
    assert rendering().message(asked, {}) is None
    assert rendering(capabilities={}).message(asked, {1: question()}) is None
    assert rendering().message(asked, {1: question(mode="url")}) is None


def test_a_question_closed_another_way_is_withdrawn_once_and_one_answered_here_is_not() -> None:
    view = rendering()
    view.message(event(4, EventKind.QUESTION, question=1), {1: question()})
    withdrawn = view.message(event(5, EventKind.CLOSED, question=1, state="answered", via="tool"), {})
    assert withdrawn is not None
    assert withdrawn["params"]["requestId"] == f"q-{STREAM}.4"
    assert view.message(event(6, EventKind.CLOSED, question=1, state="answered", via="tool"), {}) is None

    view.message(event(7, EventKind.QUESTION, question=2), {2: question(2)})
    mine = event(8, EventKind.CLOSED, question=2, state="answered", via=f"{STREAM}.7")
    assert view.message(mine, {}) is None


def test_a_result_says_which_run_it_is_of_and_whether_it_was_found() -> None:
    result = {"content": [], "_meta": {"own": 1}}
    message = rendering().message(event(9, EventKind.RESULT, result=result, error=None), {})
    assert message is not None
    assert message["id"] == 7
    assert message["result"]["_meta"] == {"own": 1, "milepost/run_id": "run-1", "milepost/trace_id": "ab" * 16}
    found = rendering(attached=True).message(event(9, EventKind.RESULT, result=result, error=None), {})
    assert found is not None
    assert found["result"]["_meta"]["milepost/attached"] is True
    assert found["result"]["_meta"]["milepost/started_at"] == 5.0


def test_an_error_outcome_is_the_requests_error() -> None:
    error = {"code": -32602, "message": "no"}
    message = rendering().message(event(9, EventKind.RESULT, result=None, error=error), {})
    assert message == {"jsonrpc": "2.0", "id": 7, "error": error}


def test_a_log_line_is_passed_on_as_it_is() -> None:
    body = {"method": "notifications/message", "params": {"level": "info", "data": 1}}
    assert rendering().message(event(2, EventKind.NOTIFY, **body), {}) == {"jsonrpc": "2.0", **body}


@pytest.mark.parametrize(
    ("method", "params", "capabilities", "expected"),
    [
        ("elicitation/create", {}, {"elicitation": {}}, True),
        ("elicitation/create", {"mode": "url"}, {"elicitation": {}}, False),
        ("elicitation/create", {"mode": "url"}, {"elicitation": {"url": {}}}, True),
        ("elicitation/create", {}, {"elicitation": {"url": {}}}, False),
        ("elicitation/create", {}, {"sampling": {}}, False),
        ("sampling/createMessage", {}, {"sampling": {}}, True),
        ("roots/list", {}, {"roots": {"listChanged": True}}, True),
        ("made/up", {}, {"elicitation": {}}, False),
    ],
)
def test_what_a_client_can_be_asked(method: str, params: Any, capabilities: Any, expected: bool) -> None:
    assert can_ask(method, params, capabilities) is expected


def test_a_sending_id_leads_back_to_its_event_and_nothing_else_does() -> None:
    assert parse_sending_id(sending_id(f"{STREAM}.12")) == (STREAM, 12)
    for other in (7, "7", "q-", f"q-{STREAM}", f"q-{STREAM}.x", f"{STREAM}.1", "q-short.1", None):
        assert parse_sending_id(other) is None


def test_the_reason_of_a_refused_answer_is_said_with_the_question() -> None:
    assert as_sent(question(), "must be 3")["message"].endswith("not accepted: must be 3")
    assert as_sent(question(), None)["message"] == "Which?"


def test_a_question_says_which_one_of_which_run_it_is_wherever_it_is_sent() -> None:
    names = {"milepost/run_id": "run-1", "milepost/question": "q3"}
    assert as_sent(question(3), None) == {"message": "Which?", "_meta": names}
    assert as_sent(question(3, _meta={"own": 1}), "no")["_meta"] == {"own": 1, **names}
    for stream in (rendering(), rendering(token=None)):
        message = stream.message(event(4, EventKind.QUESTION, question=3), {3: question(3)})
        assert message is not None
        assert message["params"]["_meta"] == {**names, "milepost/request": stream.stream.request_id}


def test_frames() -> None:
    assert frame({"a": "ä"}) == 'event: message\r\ndata: {"a":"ä"}\r\n\r\n'.encode()
    assert frame({}, "s.1") == b"id: s.1\r\nevent: message\r\ndata: {}\r\n\r\n"
    assert priming("s.0", 1.5) == b"id: s.0\r\nretry: 1500\r\ndata: \r\n\r\n"
    assert farewell(2) == b"retry: 2000\r\n\r\n"
    assert frame({"a": "\ud800"}) == b'event: message\r\ndata: {"a":"\\ud800"}\r\n\r\n'
