"""Fixtures that tests of several folders share."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from lab.postgres import PostgresServer

HERE = Path(__file__).parent
LONG = frozenset(
    {
        "browser/test_conversations.py",
        "browser/test_failures.py",
        "browser/test_forms.py",
        "browser/test_hostile.py",
        "browser/test_other_servers.py",
        "browser/test_page_of_the_docs.py",
        "browser/test_parts.py",
        "calling/test_any_server.py",
        "calling/test_at_terminal.py",
        "client/test_how_far.py",
        "client/test_resume.py",
        "connect/test_away.py",
        "connect/test_fastmcp.py",
        "connect/test_node_hosts.py",
        "connect/test_travel.py",
        "examples/test_agency_fastmcp.py",
        "lab/test_postgres.py",
        "typescript/test_typescript_clients.py",
    }
)
"""With real browsers, terminals, clients on Node, and processes that are killed: `make test-long` runs these, and
single tests of other files that are marked so: whole stories with many processes.
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.relative_to(HERE).as_posix() in LONG:
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One real PostgreSQL for this test process; tests keep apart by schemas or databases."""
    with PostgresServer(settings={"max_connections": "300"}) as server:
        yield server


@pytest.fixture(scope="session")
def postgres_url(postgres: PostgresServer) -> str:
    return postgres.url()


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    """`logs.configure` takes over the whole process's logging; put it back."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    loggers = {n: g for n, g in logging.root.manager.loggerDict.items() if isinstance(g, logging.Logger)}
    kept = {n: (list(g.handlers), g.propagate, g.level) for n, g in loggers.items()}
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, (own, propagate, old) in kept.items():
        loggers[name].handlers[:] = own
        loggers[name].propagate = propagate
        loggers[name].setLevel(old)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
