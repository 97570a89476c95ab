"""Which connections calls go out on: a kept one saves a handshake, and one that is closed meanwhile loses a call."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from client import peer as wire
from client.peer import Peer
from client.talking import LEGACY, client_of
from milepost.client import NotSent, Policy, Refused, ServerUnavailable
from milepost.core.errors import ConfigurationError


async def test_a_kept_connection_serves_the_calls_that_follow_at_once(peer: Peer, policy: Policy) -> None:
    async with client_of(peer, replace(policy, idle_connection=600.0)) as client:
        for _ in range(3):
            await client.call_tool("look")
    assert peer.connections == 1


async def test_a_connection_that_was_idle_for_too_long_is_not_used_again(peer: Peer, policy: Policy) -> None:
    async with client_of(peer, replace(policy, idle_connection=0.0)) as client:
        for _ in range(3):
            await client.call_tool("look")
    assert peer.connections == len(peer.seen) > 3


@asynccontextmanager
async def self_signed(folder: Path) -> AsyncIterator[str]:
    """The URL of a peer that speaks TLS, with a certificate that nobody vouches for."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "peer")])
    begin = datetime.now(UTC) - timedelta(days=1)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, begin, begin + timedelta(days=9))
    pem = folder / "peer.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem)
    async with await asyncio.start_server(Peer().serve, "127.0.0.1", 0, ssl=context) as server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"


@pytest.mark.parametrize("mode", ["auto", LEGACY])
async def test_a_certificate_that_is_not_trusted_is_told_at_once(tmp_path: Path, policy: Policy, mode: str) -> None:
    async with self_signed(tmp_path) as url:
        with pytest.raises(ServerUnavailable, match=r"not trusted \(self-signed certificate\): SSL_CERT_FILE") as told:
            async with client_of(url, policy, mode=mode):
                pass
    assert "could be made" in str(told.value)  # and not: in so many seconds


async def test_a_server_that_speaks_no_tls_is_told_at_once(policy: Policy) -> None:
    async def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(plain, "127.0.0.1", 0) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp"
        with pytest.raises(ServerUnavailable, match=r"could be made: .* it speaks no TLS: is it http"):
            async with client_of(url, policy, mode="auto"):
                pass


@pytest.mark.parametrize(("status", "tries"), [(407, 1), (503, 3)])
async def test_what_a_proxy_lets_not_through_was_not_sent(peer: Peer, policy: Policy, status: int, tries: int) -> None:
    """It refuses the tunnel. (Behind it there would be no server.)"""
    peer.on("CONNECT", wire.status(status))
    few = replace(policy, retry_budget=2, budget_per_second=0)
    async with (
        httpx2.AsyncClient(proxy=peer.url.removesuffix("/mcp")) as http,
        client_of("https://127.0.0.1:9/mcp", few, http_client=http) as client,
    ):
        with pytest.raises(NotSent, match=f"the proxy on the way to .* lets nothing through: {status}"):
            await client.call_tool("look")
    assert len(peer.of("CONNECT")) == tries


@pytest.mark.parametrize(("name", "value"), [("SSL_CERT_FILE", "/nowhere.pem"), ("ALL_PROXY", "socks5://127.0.0.1:9")])
async def test_an_environment_that_no_client_can_be_made_of_is_told(
    peer: Peer, policy: Policy, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """(For the second, httpx wants a package that isn't here.)"""
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=r"\(ALL_PROXY, SSL_CERT_FILE and their like\) can't be used: "):
        async with client_of(peer.url, policy):
            pass


async def test_a_path_where_nothing_is_is_told(peer: Peer, policy: Policy) -> None:
    peer.on("server/discover", wire.status(404))
    peer.on("initialize", wire.status(404))
    with pytest.raises(Refused, match=r"404: nothing is at the path of this URL \(many .* /mcp\)"):
        async with client_of(peer.url, policy, mode="auto"):
            pass


async def test_the_password_of_a_url_goes_to_its_server_and_into_no_log(
    peer: Peer, policy: Policy, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with client_of(peer.url.replace("//", "//joe:s3cr%40t@"), policy) as client:
        await client.call_tool("look")
    assert {seen.headers["authorization"] for seen in peer.seen} == {"Basic am9lOnMzY3JAdA=="}
    assert "POST http://127.0.0.1" in caplog.text
    assert "s3cr" not in caplog.text


async def test_an_auth_goes_before_the_password_of_a_url(peer: Peer, policy: Policy) -> None:
    auth = httpx2.BasicAuth("ann", "")
    async with client_of(peer.url.replace("//", "//joe:secret@"), policy, auth=auth) as client:
        await client.call_tool("look")
    assert {seen.headers["authorization"] for seen in peer.seen} == {"Basic YW5uOg=="}
