"""The table of borrowed names: complete, and true for the installed SDKs."""

from __future__ import annotations

import pathlib
import re

from mcp.server import MCPServer

import milepost.wire
from milepost.wire import sdk


def test_hazard_p2_16_every_borrowed_name_exists_in_the_installed_sdks() -> None:
    assert sdk.missing_borrowed() == []


def test_a_name_that_an_sdk_dropped_is_named() -> None:
    gone = sdk.Borrowed("mcp.server", "MCPServer", "_gone", "why", "lack")
    away = sdk.Borrowed("mcp.server.nowhere", "", "thing", "why", "lack")
    other = sdk.Borrowed("mcp.server", "NoSuch", "thing", "why", "lack")
    assert sdk.missing_borrowed([gone, away, other]) == [
        "mcp.server:MCPServer._gone",
        "mcp.server.nowhere:thing",
        "mcp.server:NoSuch.thing",
    ]


def test_every_borrowed_name_says_why_and_what_the_public_way_lacks() -> None:
    assert all(b.why and b.public for b in sdk.BORROWED)


def test_hazard_p2_16_no_other_module_uses_a_private_name_of_an_sdk() -> None:
    """Names with an underscore of modules `mcp` and `fastmcp`, imported anywhere but in the table's file."""
    folder = pathlib.Path(next(iter(milepost.wire.__path__))).parent
    pattern = re.compile(r"from (?:mcp|fastmcp)[\w.]* import .*\b_\w+|from (?:mcp|fastmcp)[\w.]*\._\w+ import")
    guilty = [
        f"{path.name}: {line.strip()}"
        for path in folder.rglob("*.py")
        if path.name != "sdk.py"
        for line in path.read_text().splitlines()
        if pattern.search(line)
    ]
    assert guilty == []


def test_the_parts_of_an_sdk_server_are_found() -> None:
    mcp = MCPServer("travel")
    assert sdk.lowlevel_of(mcp).name == "travel"
    assert sdk.bus_of(mcp) is not None
    assert sdk.bus_of(sdk.lowlevel_of(mcp)) is None
    assert sdk.auth_of(mcp) == (None, None)
    assert sdk.auth_of(sdk.lowlevel_of(mcp)) == (None, None)
    assert sdk.custom_routes_of(sdk.lowlevel_of(mcp)) == ()
    assert sdk.web_of(sdk.lowlevel_of(mcp), "/mcp") is None
