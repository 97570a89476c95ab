"""What the drill of the client plans: repeatable, each fault in each era, and nothing that would prove nothing."""

from __future__ import annotations

from collections import Counter

import pytest

from drills.client.classes import named
from drills.client.plan import (
    BOOK,
    CHARGE,
    DELETED,
    EXPIRED,
    FAULTS,
    HANDSHAKE,
    KILLED,
    MODERN,
    RESTART,
    SERVERS,
    STOCK,
    plan,
)
from lab.http1 import Request


def test_the_same_seed_makes_the_same_plan() -> None:
    assert plan(7, "milepost", 100) == plan(7, "milepost", 100) != plan(8, "milepost", 100)


@pytest.mark.parametrize("server", SERVERS)
def test_every_fault_comes_up_in_every_era_that_it_is_for_as_often_as_any_other(server: str) -> None:
    counts = Counter((one.era, one.fault) for one in plan(1, server, 400))
    assert max(counts.values()) - min(counts.values()) <= 1
    elsewhere = {STOCK if server == "milepost" else "milepost"}
    assert {fault for _, fault in counts} == {fault.name for fault in FAULTS.values() if fault.only not in elsewhere}
    sessions = {fault.name for fault in FAULTS.values() if fault.act in (DELETED, EXPIRED)}
    assert not sessions & {fault for era, fault in counts if era == MODERN}


def test_names_are_unlike_each_other() -> None:
    names = [one.name for server in SERVERS for one in plan(1, server, 300)]
    assert len(set(names)) == len(names)


def test_a_request_is_delivered_twice_only_to_what_bears_it() -> None:
    doubled = [one for one in plan(2, "milepost", 600) if one.fault == "request delivered twice"]
    assert doubled
    assert CHARGE not in {one.tool for one in doubled}


def test_the_person_is_struck_while_thinking_only_where_somebody_asks() -> None:
    planned = plan(3, "sdk", 600)
    thinking = [one for one in planned for struck in one.strikes if struck.strike().place == "thinking"]
    assert {one.tool for one in thinking} == {BOOK}


def test_whoever_is_killed_suffers_nothing_else() -> None:
    assert all(len(one.strikes) == 1 for one in plan(4, "milepost", 600) if one.suffers(KILLED))


def test_milepost_must_finish_all_but_what_must_not_be_done_twice() -> None:
    planned = plan(5, "milepost", 600)
    assert {one.tool for one in planned if not one.must_finish} == {CHARGE}
    assert sum(one.must_finish for one in planned) >= 500
    assert not any(one.must_finish for one in plan(5, "fastmcp", 200))


def test_a_plan_has_strikes_of_the_server_that_can_be_told_apart() -> None:
    restarts = [one for one in plan(6, "milepost", 400) if one.suffers(RESTART)]
    assert {one.era for one in restarts} == {HANDSHAKE, MODERN}


@pytest.mark.parametrize(
    ("verb", "body", "headers", "name"),
    [
        ("POST", b'{"id":1,"method":"initialize"}', {}, "initialize"),
        ("POST", b'{"id":1,"method":"server/discover"}', {}, "discover"),
        ("POST", b'{"method":"notifications/initialized"}', {}, "initialized"),
        ("POST", b'{"id":1,"method":"tools/call","params":{"name":"book"}}', {}, "call"),
        ("POST", b'{"id":1,"method":"tools/call","params":{"requestState":"s"}}', {}, "round"),
        ("POST", b'{"id":1,"method":"tools/list"}', {}, "list"),
        ("POST", b'{"id":1,"method":"ping"}', {}, "other"),
        ("POST", b'{"id":1,"result":{}}', {}, "answer"),
        ("POST", b"nonsense", {}, "other"),
        ("GET", b"", {}, "listen"),
        ("GET", b"", {"last-event-id": "7"}, "reread"),
        ("DELETE", b"", {}, "goodbye"),
    ],
)
def test_a_request_is_known_by_its_message(verb: str, body: bytes, headers: dict[str, str], name: str) -> None:
    assert named(Request(f"{verb} /mcp HTTP/1.1\r\n\r\n".encode(), body, headers)) == name
