"""Stages and their times, as a call goes on."""

from __future__ import annotations

import pytest

from milepost.calling.news import told
from milepost.calling.stages import Begun, Ended, Moved, Stages, took
from milepost.client import events
from milepost.client.events import Stage


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stages(clock: Clock) -> Stages:
    return Stages(clock)


def mark(name: str, which: str, progress: float) -> Stage:
    text = name if which == "begin" else f"{name}: done"
    return Stage(progress=progress, total=4, message=text, name=name, mark=which)


def test_a_stage_begins_and_ends_with_the_time_of_its_work(stages: Stages, clock: Clock) -> None:
    assert stages.heard(mark("searching", "begin", 0.01)) == Begun("searching")
    clock.now += 2
    assert stages.now() == ("searching", 2.0)
    clock.now += 1
    assert stages.heard(mark("searching", "end", 1)) == Ended("searching", 3.0)
    assert stages.now()[0] == ""


def test_while_a_person_is_asked_its_clock_stands_still(stages: Stages, clock: Clock) -> None:
    stages.heard(mark("confirming", "begin", 1.01))
    clock.now += 1
    stages.pause()
    clock.now += 50
    stages.pause()
    assert stages.now() == ("confirming", 1.0)
    stages.go_on()
    clock.now += 50
    stages.go_on()
    clock.now += 1
    assert stages.heard(mark("confirming", "end", 2)) == Ended("confirming", 2.0)


def test_what_was_told_before_is_not_told_again(stages: Stages) -> None:
    stages.heard(mark("a", "begin", 0.01))
    stages.heard(mark("a", "end", 1))
    stages.heard(mark("b", "begin", 1.01))
    assert [stages.heard(mark("a", "begin", 0.01)), stages.heard(mark("a", "end", 1))] == [None, None]
    assert stages.heard(mark("b", "begin", 1.01)) is None


def test_the_end_of_a_stage_that_began_in_an_earlier_process_has_no_time(stages: Stages) -> None:
    assert stages.heard(mark("a", "end", 1)) == Ended("a", None)
    assert stages.heard(mark("a", "end", 1)) is None


def test_a_stage_that_comes_again_in_a_loop_is_told_again(stages: Stages) -> None:
    assert stages.heard(mark("a", "begin", 1)) == Begun("a")
    assert stages.heard(mark("a", "end", 1)) == Ended("a", 0.0)
    assert stages.heard(mark("a", "begin", 1)) == Begun("a")


def test_stages_at_the_same_time_are_both_shown(stages: Stages) -> None:
    stages.heard(mark("a", "begin", 0.01))
    stages.heard(mark("b", "begin", 1.01))
    assert stages.now()[0] == "a, b"


def test_progress_of_any_server_is_told_but_not_each_step_of_it(stages: Stages, clock: Clock) -> None:
    assert stages.heard(Stage(progress=1, total=10, message="reading")) == Moved("reading (1 of 10)")
    assert stages.heard(Stage(progress=2, total=10, message="reading")) is None
    assert stages.now()[0] == "reading (2 of 10)"
    clock.now += 6
    assert stages.heard(Stage(progress=3, total=10)) == Moved("3 of 10")
    clock.now += 6
    assert stages.heard(Stage(progress=7)) == Moved("7")
    assert stages.heard(Stage(progress=7)) is None


def test_what_is_said_within_a_stage_stands_beside_its_name(stages: Stages) -> None:
    stages.heard(mark("searching", "begin", 0.01))
    assert stages.heard(Stage(progress=0.01, total=4, message="searching")) is None
    stages.heard(Stage(progress=0.5, total=4, message="page 2"))
    assert stages.now()[0] == "searching: page 2"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.04, "0.0 s"), (0.4, "0.4 s"), (12.3, "12 s"), (125, "2 min 5 s"), (7201, "120 min 1 s")]
)
def test_times_are_as_exact_as_people_want_them(seconds: float, words: str) -> None:
    assert took(seconds) == words


@pytest.mark.parametrize(
    ("event", "words"),
    [
        (events.Retrying(reason="connection lost", delay=0.42, attempt=2), "connection lost, trying again in 0.4 s"),
        (events.Retrying(reason="", delay=12, attempt=2), "connection lost, trying again in 12 s"),
        (events.Retrying(reason="refused", delay=0.01, attempt=2), "refused, trying again at once"),
        (events.Reconnected(), "connected again"),
        (events.Reinitialized(), "the server had forgotten this session; a new one is open"),
        (events.Resumed(method="tools/call", name="x", how="stream"), "going on with x: its stream is read on"),
        (events.Resumed(method="tools/call", name="x", how="new way"), "going on with x: new way"),
        (events.Resumed(method="tools/call", name="x"), "going on with x"),
        (events.Answered(key="q1", acknowledged=False, again=True), "the answer that you gave is sent again"),
        (events.Answered(key="q1", acknowledged=True), None),
        (events.CircuitChanged(state="open"), "the server fails again and again, and is left alone for a while"),
        (events.CircuitChanged(state="closed"), None),
        (events.Sent(method="tools/call"), None),
    ],
)
def test_events_are_told_in_a_few_words(event: events.Event, words: str | None) -> None:
    assert told(event) == words
