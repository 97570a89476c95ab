"""What authors may import, pinned: a name that goes, or comes unnoticed, fails here."""

from __future__ import annotations

import inspect

import milepost
from milepost import app, cli, client, testing

AUTHORS = {"Milepost", "current_run", "current_step", "key", "now", "stage", "step", "uuid", "workflow"}
CLIENTS = {
    "CallError", "CircuitOpen", "Client", "Ended", "JournalInUse", "NotSent", "OutcomeUnknown", "Pending", "Policy",
    "Refused", "ServerUnavailable", "TimedOut", "Unauthorized", "unfinished",
}  # fmt: skip
COMMANDS = {"call", "connect", "resume", "serve", "lanes", "runs", "store", "demo"}
RUNS_COMMANDS = {"list", "show", "answer", "cancel", "retry"}
STORE_COMMANDS = {"migrate", "check", "sweep", "copy", "give"}


def test_the_names_for_authors_are_these() -> None:
    assert set(milepost.__all__) | {"Milepost"} == AUTHORS
    for name in milepost.__all__:
        assert getattr(milepost, name).__doc__, f"{name} has no docstring"


def test_the_app_takes_a_server_a_store_and_settings() -> None:
    parameters = inspect.signature(app.Milepost).parameters
    assert list(parameters) == ["server", "store", "settings", "scrubber", "unlisted_may_ask", "flags"]


def test_the_commands_are_these() -> None:
    assert {name for name in cli.app if not name.startswith("-")} == COMMANDS
    assert {name for name in cli.runs if not name.startswith("-")} == RUNS_COMMANDS
    assert {name for name in cli.stores if not name.startswith("-")} == STORE_COMMANDS


def test_the_names_for_those_who_call_tools_are_these() -> None:
    assert set(client.__all__) == CLIENTS
    for name in client.__all__:
        assert getattr(client, name).__doc__, f"{name} has no docstring"


def test_the_names_for_tests_are_these() -> None:
    assert set(testing.__all__) == {"Trial", "Workbench", "workbench"}
