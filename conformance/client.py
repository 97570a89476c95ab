"""The program that the official suite starts once per client scenario: `milepost.client.Client` in an everyday use.

    python conformance/client.py URL

The suite sets MCP_CONFORMANCE_SCENARIO (what to do) and, for some, MCP_CONFORMANCE_CONTEXT (JSON: credentials, calls to
make). It watches the wire, so a scenario here does what a user would do and checks nothing. What is wrong on purpose
(`iss-wrong-issuer` and its like) ends in an exception, which the suite takes as it is meant.

Two rules keep it honest: the client is given nothing but what a user gives it, so it finds out by itself which era the
mock server is of (MCP_CONFORMANCE_PROTOCOL_VERSION is not read); and authorization is the SDK's own, handed over as
`Client(url, auth=...)`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import httpx2
from mcp import MCPError
from mcp import types as t
from mcp.client import ClientRequestContext
from mcp.client.auth import OAuthClientProvider
from mcp.client.auth.extensions.client_credentials import (
    ClientCredentialsOAuthProvider,
    PrivateKeyJWTOAuthProvider,
    SignedJWTParameters,
)
from mcp.client.auth.extensions.identity_assertion import IdentityAssertionOAuthProvider
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken

from milepost.client import Client

REDIRECT = "http://localhost:3000/callback"
"""Where the authorization server sends the user back to. Nobody listens there: the redirect itself is read."""
METADATA_DOCUMENT = "https://conformance-test.local/client-metadata.json"
"""The client id that `auth/basic-cimd` looks for."""
BY_BASIC: Final = "client_secret_basic"
SCENARIO_LIMIT: Final = 60.0
"""Seconds."""
PATIENCE: Final = 30.0
"""Seconds for one answer of an authorization server: all scenarios run at the same time, on however few cores."""

Scenario = Callable[[str], Awaitable[None]]
Answer = t.ElicitResult | t.ErrorData


def context() -> dict[str, Any]:
    """What the suite tells this scenario."""
    told: dict[str, Any] = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}"))
    return told


# --- the user ---------------------------------------------------------------------------------------


async def accept_defaults(_: ClientRequestContext, asked: t.ElicitRequestParams) -> Answer:
    """Accepts a form as it is shown, with what stands in it."""
    fields = asked.requested_schema["properties"] if isinstance(asked, t.ElicitRequestFormParams) else {}
    return t.ElicitResult(action="accept", content={k: v["default"] for k, v in fields.items() if "default" in v})


async def confirm(_: ClientRequestContext, _asked: t.ElicitRequestParams) -> Answer:
    return t.ElicitResult(action="accept", content={"confirmed": True})


async def say_nothing(_: ClientRequestContext, _asked: t.CreateMessageRequestParams) -> t.CreateMessageResult:
    return t.CreateMessageResult(role="assistant", content=t.TextContent(type="text", text="..."), model="none")


async def no_roots(_: ClientRequestContext) -> t.ListRootsResult:
    return t.ListRootsResult(roots=[])


# --- scenarios --------------------------------------------------------------------------------------


async def look(url: str) -> None:
    async with Client(url) as client:
        await client.list_tools()


def calling(tool: str, **arguments: Any) -> Scenario:
    async def call(url: str) -> None:
        handlers = {
            "elicitation_callback": accept_defaults,
            "sampling_callback": say_nothing,
            "list_roots_callback": no_roots,
        }
        async with Client(url, **handlers) as client:
            await client.list_tools()
            await client.call_tool(tool, arguments)

    return call


async def call_every_tool(url: str) -> None:
    """Also those with malformed headers, which the client must not even list."""
    async with Client(url) as client:
        for tool in (await client.list_tools()).tools:
            with suppress(MCPError):
                await client.call_tool(tool.name, dict.fromkeys(tool.input_schema.get("required", []), "x"))


async def make_the_calls(url: str) -> None:
    """Those that the suite names, with the arguments that it names."""
    async with Client(url) as client:
        await client.list_tools()
        for call in context()["toolCalls"]:
            await client.call_tool(call["name"], call["arguments"])


async def echo_a_schema(url: str) -> None:
    async with Client(url) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        await client.call_tool("json_schema_echo", {"schema": tools["json_schema_2020_12_tool"].input_schema})


async def answer_in_rounds(url: str) -> None:
    """Calls with a state and without one, and one between them that must carry none of it."""
    async with Client(url, elicitation_callback=confirm) as client:
        await client.list_tools()
        for name in ("echo_state", "unrelated", "no_state", "no_result_type"):
            await client.call_tool(f"test_mrtr_{name}", {})


# --- authorization ----------------------------------------------------------------------------------


class Kept:
    """Tokens and registration, in memory (`mcp.client.auth.TokenStorage`)."""

    def __init__(self, client: OAuthClientInformationFull | None = None) -> None:
        self._client = client
        self._tokens: OAuthToken | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self._tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self._tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self._client

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self._client = client_info


class Browser:
    """A user who agrees to everything: opens the page, and reads where it redirects to."""

    def __init__(self) -> None:
        self._landed: dict[str, list[str]] = {}

    async def open(self, url: str) -> None:
        async with httpx2.AsyncClient(follow_redirects=False, timeout=PATIENCE) as http:
            response = await http.get(url)
        self._landed = parse_qs(urlsplit(response.headers["location"]).query)

    async def landed(self) -> AuthorizationCodeResult:
        return AuthorizationCodeResult(**{name: values[0] for name, values in self._landed.items() if name in _READ})


_READ = AuthorizationCodeResult.model_fields.keys()


def registered(told: dict[str, Any]) -> OAuthClientInformationFull | None:
    """The client that the authorization server knows beforehand, if it does."""
    if "client_id" not in told:
        return None
    method = BY_BASIC if "client_secret" in told else "none"
    return OAuthClientInformationFull(
        client_id=told["client_id"],
        client_secret=told.get("client_secret"),
        redirect_uris=[REDIRECT],
        token_endpoint_auth_method=method,
    )


def by_code(url: str) -> httpx2.Auth:
    """The authorization code flow, with the user's browser."""
    browser = Browser()
    metadata = OAuthClientMetadata(
        client_name="milepost-conformance",
        redirect_uris=[REDIRECT],
        grant_types=["authorization_code", "refresh_token"],
        response_types=["code"],
    )
    return OAuthClientProvider(
        url, metadata, Kept(registered(context())), browser.open, browser.landed, client_metadata_url=METADATA_DOCUMENT
    )


def by_secret(url: str) -> httpx2.Auth:
    told = context()
    return ClientCredentialsOAuthProvider(url, Kept(), told["client_id"], told["client_secret"])


def by_signature(url: str) -> httpx2.Auth:
    told = context()
    signed = SignedJWTParameters(
        issuer=told["client_id"],
        subject=told["client_id"],
        signing_key=told["private_key_pem"],
        signing_algorithm=told.get("signing_algorithm", "ES256"),
    )
    return PrivateKeyJWTOAuthProvider(url, Kept(), told["client_id"], signed.create_assertion_provider())


async def by_company(url: str) -> httpx2.Auth:
    """The company's identity provider vouches for the user (SEP-990); its word is exchanged for the server's token."""
    told = context()

    async def vouched(audience: str, resource: str) -> str:
        wanted = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "requested_token_type": "urn:ietf:params:oauth:token-type:id-jag",
            "subject_token_type": "urn:ietf:params:oauth:token-type:id_token",
            "subject_token": told["idp_id_token"],
            "client_id": told["idp_client_id"],
            "audience": audience,
            "resource": resource,
        }
        async with httpx2.AsyncClient(timeout=PATIENCE) as http:
            return str((await http.post(told["idp_token_endpoint"], data=wanted)).json()["access_token"])

    return IdentityAssertionOAuthProvider(
        url, Kept(), told["client_id"], told["client_secret"], await issuer_of(url), vouched,
        token_endpoint_auth_method=BY_BASIC,
    )  # fmt: skip


async def issuer_of(url: str) -> str:
    """A company configures its authorization server; the suite's can only be read off the resource's metadata."""
    parts = urlsplit(url)
    where = f"{parts.scheme}://{parts.netloc}/.well-known/oauth-protected-resource{parts.path}"
    async with httpx2.AsyncClient(timeout=PATIENCE) as http:
        return str((await http.get(where)).json()["authorization_servers"][0])


async def use(url: str, auth: httpx2.Auth) -> None:
    """Calls the first tool: some scenarios want a wider scope for that, and some never give it."""
    async with Client(url, auth=auth, elicitation_callback=accept_defaults) as client:
        for tool in (await client.list_tools()).tools[:1]:
            with suppress(MCPError):
                await client.call_tool(tool.name, {})


async def with_code(url: str) -> None:
    await use(url, by_code(url))


async def with_secret(url: str) -> None:
    await use(url, by_secret(url))


async def with_signature(url: str) -> None:
    await use(url, by_signature(url))


async def with_company(url: str) -> None:
    await use(url, await by_company(url))


SCENARIOS: dict[str, Scenario] = {
    "initialize": look,
    "tools_call": calling("add_numbers", a=5, b=3),
    "request-metadata": calling("add_numbers", a=5, b=3),
    "http-standard-headers": calling("add_numbers", a=5, b=3),
    "http-custom-headers": make_the_calls,
    "http-invalid-tool-headers": call_every_tool,
    "json-schema-ref-no-deref": look,
    "json-schema-2020-12-preservation": echo_a_schema,
    "sep-2322-client-request-state": answer_in_rounds,
    "elicitation-sep1034-client-defaults": calling("test_client_elicitation_defaults"),
    "sse-retry": calling("test_reconnection"),
    "auth/client-credentials-basic": with_secret,
    "auth/client-credentials-jwt": with_signature,
    "auth/enterprise-managed-authorization": with_company,
}


async def bounded(scenario: Awaitable[None]) -> None:
    async with asyncio.timeout(SCENARIO_LIMIT):
        await scenario


def main() -> None:
    name = os.environ["MCP_CONFORMANCE_SCENARIO"]
    scenario = SCENARIOS.get(name, with_code if name.startswith("auth/") else None)
    if scenario is None:
        sys.exit(f"no scenario {name!r} is known here")
    asyncio.run(bounded(scenario(sys.argv[1])))


if __name__ == "__main__":
    main()
