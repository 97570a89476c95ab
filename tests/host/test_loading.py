"""Importing a TARGET: by module or by file, and the functions that milepost.toml makes steps of before."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from mcp.server import MCPServer

from host.writing import SERVER, STATEFUL, write
from milepost.core.errors import ConfigurationError
from milepost.wire.declared import declared_tools
from milepost.wire.target import load, wrap_steps

# --- loading --------------------------------------------------------------------------------------


def test_a_server_is_loaded_by_module_or_by_file(folder: Path) -> None:
    write(folder, "travel_a.py", SERVER)
    assert isinstance(load("travel_a:mcp"), MCPServer)
    assert load("travel_a.py:mcp") is load("travel_a:mcp")
    assert load(f"{folder}/travel_a.py:mcp") is load("travel_a:mcp")


def test_the_only_server_of_a_module_needs_no_name(folder: Path) -> None:
    write(folder, "travel_b.py", SERVER)
    assert isinstance(load("travel_b"), MCPServer)


def test_a_function_without_arguments_makes_the_server(folder: Path) -> None:
    write(folder, "travel_c.py", "from mcp.server import MCPServer\ndef make(): return MCPServer('made')\n")
    made = load("travel_c:make")
    assert isinstance(made, MCPServer)
    assert made.name == "made"


def test_a_file_finds_its_neighbours_and_relative_imports_of_its_package(folder: Path) -> None:
    write(folder, "app/neighbour.py", "NAME = 'n'\n")
    write(folder, "app/server.py", "import neighbour\n" + SERVER)
    assert isinstance(load("app/server.py:mcp"), MCPServer)
    write(folder, "packed/__init__.py", "")
    write(folder, "packed/names.py", "NAME = 'p'\n")
    write(folder, "packed/server_p.py", "from .names import NAME\n" + SERVER)
    assert isinstance(load("packed/server_p.py:mcp"), MCPServer)


def test_a_file_with_the_name_of_a_known_module_is_still_that_file(folder: Path) -> None:
    write(folder, "json.py", SERVER)
    assert isinstance(load("json.py:mcp"), MCPServer)


@pytest.mark.parametrize(
    ("target", "files", "says"),
    [
        ("nowhere_x:mcp", {}, "there is no module 'nowhere_x' here or on the Python path"),
        ("nowhere.py:mcp", {}, "there is no file nowhere.py"),
        (":mcp", {}, "must be module:object or path/file.py:object"),
        ("bad_a:mcp", {"bad_a.py": "import missing_thing\n"}, "No module named 'missing_thing' ("),
        ("bad_b.py:mcp", {"bad_b.py": "1/0\n"}, "ZeroDivisionError: division by zero ("),
        ("bad_c:mcp", {"bad_c.py": "def (:\n"}, "bad_c.py, line 1)"),
        ("bad_d:mcp", {"bad_d.py": "raise SystemExit\n"}, "does not import: SystemExit ("),
        ("bad_e:mpc", {"bad_e.py": SERVER}, "has no 'mpc'. Servers in it: mcp"),
        ("bad_f:servr", {"bad_f.py": "server = 1\n"}, "has no 'servr' (did you mean 'server'?)"),
        ("bad_g:x", {"bad_g.py": ""}, "It holds no server"),
        ("bad_h:mcp", {"bad_h.py": "mcp = 'x'\n"}, "is a str, not an MCPServer"),
        ("bad_i:mcp", {"bad_i.py": "class mcp: pass\n"}, "is the class mcp, not"),
        ("bad_j:make", {"bad_j.py": "def make(x): pass\n"}, "needs arguments"),
        ("bad_k:make", {"bad_k.py": "def make(): return 1\n"}, "a function that returned a int"),
        ("bad_l:make", {"bad_l.py": "async def make(): pass\n"}, "a function that returned a coroutine"),
        ("bad_m", {"bad_m.py": SERVER + "other = MCPServer('o')\n"}, "with one of mcp, other"),
        ("bad_n", {"bad_n.py": ""}, "this module holds no server"),
    ],
)
def test_a_target_that_can_not_be_loaded_says_why(folder: Path, target: str, files: dict[str, str], says: str) -> None:
    for name, text in files.items():
        write(folder, name, text)
    with pytest.raises(ConfigurationError) as caught:
        load(target)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


# --- steps of milepost.toml -----------------------------------------------------------------------


def test_steps_are_wrapped_before_the_target_imports_them(folder: Path) -> None:
    write(folder, "agency_api.py", "async def hold_seat(): return 'seat'\nclass Api:\n    async def pay(self): ...\n")
    write(folder, "agency_srv.py", "from agency_api import hold_seat\n" + SERVER)
    toml = declared_tools({"x": {**STATEFUL, "steps": ["agency_api:hold_seat", "agency_api:Api.pay"]}})

    def as_step(fn: Any) -> Any:
        def wrapper() -> str:
            return f"step {fn.__name__}"

        wrapper.__milepost_step__ = object()  # type: ignore[attr-defined]
        return wrapper

    assert wrap_steps(toml, as_step) == ["agency_api:hold_seat", "agency_api:Api.pay"]
    load("agency_srv:mcp")
    first = sys.modules["agency_srv"].hold_seat
    assert first() == "step hold_seat"
    wrap_steps(toml, as_step)
    assert sys.modules["agency_api"].hold_seat is first


@pytest.mark.parametrize(
    ("step", "says"),
    [
        ("agency_w:hold_saet", "is no function of agency_w (did you mean 'hold_seat'?)"),
        ("agency_v:x", "does not import: there is no module 'agency_v'"),
        ("agency_w:Nope.x", "is no function of agency_w"),
    ],
)
def test_a_step_that_is_not_there_is_refused(folder: Path, step: str, says: str) -> None:
    write(folder, "agency_w.py", "def hold_seat(): ...\n")
    with pytest.raises(ConfigurationError) as caught:
        wrap_steps(declared_tools({"x": {**STATEFUL, "steps": [step]}}), lambda fn: fn)
    assert says in str(caught.value)
