"""What is typed after `milepost connect`: checked before anything starts, and secrets never on the command line."""

from __future__ import annotations

import asyncio
import stat
import subprocess
from pathlib import Path

import anyio
import pytest
from mcp import Client

from connect.running import LIMIT, MILEPOST, environment, listening, piped, raw, stock
from milepost.connect.command import checked, headers_of
from milepost.connect.places import name_of, places
from milepost.core.errors import ConfigurationError

pytestmark = pytest.mark.timeout(120)

URL = "https://example.org/mcp"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("example.org/mcp", "no URL of a server"),
        ("ftp://example.org/mcp", "no URL of a server"),
        ("http://", "no URL of a server"),
        ("http://example.org:port/mcp", "no URL"),
        ("https://ann:secret@example.org/mcp", "--bearer-env"),
    ],
)
def test_a_url_that_cannot_be_is_refused_with_what_to_write(url: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        checked(url)


def test_headers_take_secrets_from_the_environment() -> None:
    env = {"KEY": "k-1", "TOKEN": "t-1\n"}
    headers = headers_of(["X-Key: ${KEY}", "X-Plain:a: b"], "TOKEN", env)
    assert headers == {"X-Key": "k-1", "X-Plain": "a: b", "Authorization": "Bearer t-1"}


@pytest.mark.parametrize(
    ("given", "bearer", "words"),
    [
        (["nothing"], None, "Name: value"),
        (["Bad Name: x"], None, "Name: value"),
        (["X-Key: ${NOT_THERE}"], None, "no environment variable NOT_THERE"),
        (["Authorization: Bearer abc"], None, "seen by others"),
        (["X-Key: ${LINES}"], None, "can't carry"),
        ([], "NOT_THERE", "nothing in the environment variable NOT_THERE"),
    ],
)
def test_a_header_that_cannot_be_is_refused(given: list[str], bearer: str | None, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        headers_of(given, bearer, {"LINES": "a\r\nb"})


def test_each_url_has_a_folder_of_its_own_that_only_its_user_may_read(tmp_path: Path) -> None:
    env = {"XDG_STATE_HOME": str(tmp_path / "state")}
    one, other = places(URL, store=None, journal=None, env=env), places(URL + "2", store=None, journal=None, env=env)
    assert one.store != other.store
    assert one.journal is not None
    folder = tmp_path / "state" / "milepost" / "connect" / name_of(URL)
    assert one.journal == f"sqlite:///{folder / 'client.db'}"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_places_may_be_chosen_and_a_journal_left_out(tmp_path: Path) -> None:
    env = {"XDG_STATE_HOME": str(tmp_path)}
    chosen = places(URL, store="sqlite:///a.db", journal="sqlite:///b.db", env=env)
    assert (chosen.store, chosen.journal, chosen.seen) == ("sqlite:///a.db", "sqlite:///b.db", None)
    assert places(URL, store=None, journal="off", env=env).journal is None
    assert not (tmp_path / "a.db").exists()


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "milepost").write_text("in the way")
    with pytest.raises(ConfigurationError, match="give --store and --journal"):
        places(URL, store=None, journal=None, env={"XDG_STATE_HOME": str(tmp_path)})


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nonsense"], "'nonsense' is no URL of a server"),
        ([URL, "--journal", "client.db"], "the journal 'client.db' is no SQLite file"),
        ([URL, "--journal", "sqlite:///nowhere/client.db"], "the journal"),
    ],
)
def test_a_fault_is_one_sentence_and_exit_code_two(tmp_path: Path, arguments: list[str], words: str) -> None:
    done = subprocess.run(
        [MILEPOST, "connect", *arguments], capture_output=True, text=True, timeout=LIMIT, env=environment(tmp_path),
        check=False, cwd=tmp_path, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"milepost: {words}")
    assert done.stderr.count("\n") == 1


async def test_headers_and_token_reach_the_remote_and_no_log(tmp_path: Path) -> None:
    env = {"SHOP_TOKEN": "s3cret-token", "SHOP_KEY": "k3y"}
    flags = ("--bearer-env", "SHOP_TOKEN", "--header", "X-Shop: ${SHOP_KEY}")
    with anyio.fail_after(LIMIT):
        async with (
            stock("stock_shop.py", tmp_path) as remote,
            listening(tmp_path, remote.url, *flags, env=env) as proxy,
            Client(proxy.url, cache=None) as client,
        ):
            heard = (await client.call_tool("headers", {})).structured_content
    assert heard is not None
    assert heard["authorization"] == "Bearer s3cret-token"
    assert heard["x-shop"] == "k3y"
    assert "s3cret-token" not in proxy.log.read_text()
    kept = [path for path in (tmp_path / "state").rglob("*") if path.is_file()]
    assert not [path for path in kept if b"s3cret-token" in path.read_bytes()]


async def test_stdout_carries_the_protocol_alone(tmp_path: Path) -> None:
    with anyio.fail_after(LIMIT):
        async with stock("stock_shop.py", tmp_path) as remote, raw(piped(tmp_path, remote.url)) as host:
            assert (await host.handshake({}))["serverInfo"]["name"] == "shop"
            await host.say({"id": 2, "method": "tools/call", "params": {"name": "count", "arguments": {}}})
            assert (await host.response())["result"]["content"][0]["text"] == "counted"
            await host.leave()
            assert host.process.returncode == 0
            assert await host.rest() == b""


async def test_proxies_of_one_remote_share_their_folder_and_leave_no_files_that_grow(tmp_path: Path) -> None:
    async def once() -> None:
        async with raw(piped(tmp_path, remote.url)) as host:
            await host.handshake({})
            await host.say({"id": 2, "method": "tools/call", "params": {"name": "fail", "arguments": {}}})
            await host.response()
            await host.leave()

    def files() -> set[str]:
        return {path.name for path in (tmp_path / "state").rglob("*") if path.is_file()}

    with anyio.fail_after(LIMIT * 2):
        async with stock("stock_shop.py", tmp_path) as remote:
            await once()
            before = files()
            await asyncio.gather(once(), once())
    assert files() == before
