"""The pure parts: events out of bytes, waits, budgets, breakers, and what a status means."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import mcp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.client.borrowed import BORROWED
from milepost.client.interaction import Interaction
from milepost.client.policy import Policy
from milepost.client.retrying import Breaker, Budget, Circuit, ceiling, delay, parse_retry_after
from milepost.client.sse import ServerSent, SseParser, TooLarge

STREAM = (
    b"\xef\xbb\xbfid: 1\r\nretry: 250\r\ndata: \r\n\r\n"
    b": a comment\n\nevent: message\ndata: first\ndata:second\n\n"
    b"data\rid: 2\r\r"
    b"event: other\ndata: x\nunknown: y\nid: bad\x00id\nretry: soon\n\n"
    b"data: caf\xc3\xa9\n\n"
    b"data: never ended"
)
EVENTS = [
    ServerSent(b"", id="1", retry=250),
    ServerSent(b"first\nsecond"),
    ServerSent(b"", id="2"),
    ServerSent(b"x", kind="other"),
    ServerSent("caf\u00e9".encode()),
]


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_events_are_the_same_wherever_the_bytes_are_cut(cuts: list[int]) -> None:
    parser, events = SseParser(1000), []
    places = [0, *sorted(cuts), len(STREAM)]
    for start, end in itertools.pairwise(places):
        events += parser.feed(STREAM[start:end])
    assert events == EVENTS


def test_events_come_byte_by_byte_too() -> None:
    parser = SseParser(1000)
    assert [event for n in range(len(STREAM)) for event in parser.feed(STREAM[n : n + 1])] == EVENTS


@pytest.mark.parametrize("piece", [b"data: x\n", b"data: xxxxxxxxx", b":xxxxxx"])
def test_no_event_grows_past_the_limit(piece: bytes) -> None:
    parser = SseParser(100)
    with pytest.raises(TooLarge, match="longer than 100 bytes"):
        all(parser.feed(piece) == [] for _ in range(100))


def test_an_event_that_comes_in_one_piece_is_held_to_the_limit_too() -> None:
    with pytest.raises(TooLarge):
        SseParser(100).feed(b"data: " + b"x" * 200 + b"\n\n")


def test_many_events_in_one_piece_are_no_large_one() -> None:
    assert len(SseParser(100).feed(b"data: 1234567890\n\n" * 50)) == 50


# --- waits ---------------------------------------------------------------------------------------


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_a_wait_stays_below_its_ceiling(failures: int, chance: float) -> None:
    policy = Policy(first_delay=0.1, max_delay=10.0)
    assert 0 <= delay(policy, failures, chance) <= ceiling(policy, failures) <= 10.0


def test_ceilings_double_until_the_longest() -> None:
    policy = Policy(first_delay=0.1, max_delay=1.0)
    assert [ceiling(policy, n) for n in (1, 2, 3, 4, 5, 6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_a_server_that_names_a_time_is_not_asked_before_it() -> None:
    policy = Policy(max_delay=10.0, max_retry_after=60.0)
    assert delay(policy, 1, 0.5, retry_after=30.0) == 30.0
    assert delay(policy, 1, 0.5, retry_after=1e9) == 60.0


def test_retry_after_is_seconds_or_a_date() -> None:
    now = datetime(2026, 7, 28, tzinfo=UTC)
    assert parse_retry_after("120") == 120.0
    assert parse_retry_after(format_datetime(now + timedelta(seconds=90), usegmt=True), now) == 90.0
    assert parse_retry_after(format_datetime(now - timedelta(seconds=90), usegmt=True), now) == 0.0
    assert parse_retry_after("Tue, 28 Jul 2026 00:00:05 -0000", now) == 5.0
    assert parse_retry_after("soon") is None
    assert parse_retry_after(None) is None


def test_a_budget_is_spent_and_given_back() -> None:
    budget = Budget(Policy(retry_budget=2.0, budget_per_second=1.0, budget_per_success=0.5))
    assert [budget.take(10.0) for _ in range(3)] == [True, True, False]
    assert budget.take(11.5)
    budget.succeeded()
    assert budget.take(11.5)
    assert not budget.take(11.5)
    assert [budget.take(99.0) for _ in range(3)] == [True, True, False]


def test_a_breaker_opens_rests_longer_each_time_and_closes() -> None:
    breaker = Breaker(Policy(breaker_failures=2, breaker_rest=1.0, breaker_max_rest=3.0))
    breaker.failed(0.0)
    assert breaker.wait(0.0) == 0.0
    breaker.failed(0.0)
    assert (breaker.state, breaker.wait(0.0), breaker.wait(1.0)) == (Circuit.OPEN, 1.0, 0.0)
    breaker.trying(1.0)
    assert breaker.state is Circuit.HALF_OPEN
    assert breaker.wait(1.0) == 2.0  # one probes, the others wait
    breaker.failed(1.0)
    assert breaker.wait(1.0) == 2.0
    breaker.trying(3.0)
    breaker.failed(3.0)
    assert breaker.wait(3.0) == 3.0
    breaker.succeeded()
    assert (breaker.state, breaker.wait(3.0)) == (Circuit.CLOSED, 0.0)


# --- questions -----------------------------------------------------------------------------------


def test_questions_are_known_by_their_words_and_how_often_they_came() -> None:
    call = Interaction("tools/call", "look")
    first, second = call.meet("elicitation/create", {"message": "a"}), call.meet("elicitation/create", {"message": "a"})
    other = call.meet("elicitation/create", {"message": "b", "_meta": {"x": 1}})
    assert len({first.key, second.key, other.key}) == 3
    call.sending(2, "session")
    call.from_its_beginning()
    assert call.meet("elicitation/create", {"message": "a"}) is first
    assert call.meet("elicitation/create", {"message": "b", "_meta": {"x": 2}}) is other


def test_a_name_of_milepost_is_stronger_than_words_until_the_words_change() -> None:
    call = Interaction("tools/call", "look")
    named = {"message": "a", "_meta": {"milepost/question": "q1"}}
    first = call.meet("elicitation/create", named, 1)
    assert call.meet("elicitation/create", named, 2) is first
    assert first.wire_id == 2
    anew = call.meet("elicitation/create", {**named, "message": "a\n\nThe last answer was not accepted"}, 3)
    assert anew is not first
    assert anew.key == first.key == "q1"


def test_a_call_comes_out_of_its_json_as_it_went_in() -> None:
    call = Interaction("tools/call", "look", {"name": "look", "arguments": {"n": 1}}, reissue=True)
    asked = call.round("state", {"k": {"method": "elicitation/create", "params": {"message": "a"}}})["k"]
    asked.reply = {"result": {"action": "accept"}}
    again = Interaction.from_json(call.call_id, call.begun, call.as_json())
    assert again.as_json() == call.as_json()
    assert again.found
    assert again.keeps_answers
    assert again.meet("elicitation/create", {"message": "a"}).key != asked.key  # the same words again: a new question


def test_what_is_borrowed_from_the_sdk_is_there() -> None:
    made = mcp.Client("http://127.0.0.1/mcp")
    assert [name for name in BORROWED if not hasattr(made, name)] == []
