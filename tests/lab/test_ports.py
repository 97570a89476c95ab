"""Ports that stay free while their server is dead."""

from __future__ import annotations

import socket

import pytest

from lab import ports


def test_a_free_port_is_out_of_reach_of_outgoing_connections_and_named_once() -> None:
    some = [ports.free_port() for _ in range(50)]
    assert len(set(some)) == 50
    assert all(ports.FIRST <= port < ports.LAST for port in some)


def test_a_port_that_somebody_listens_on_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", ports.free_port())) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(ports, "_numbers", iter([port - ports.FIRST, port - ports.FIRST + 1]))
        assert ports.free_port() == port + 1
