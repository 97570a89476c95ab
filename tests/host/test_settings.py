"""Settings: strength of the sources, forms of the values, and what is said about a wrong one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from milepost.core.errors import ConfigurationError
from milepost.core.same_call import SameCallRules
from milepost.engine.tuning import Tuning
from milepost.settings import Settings
from milepost.store.settings import SqliteSettings
from milepost.wire.limits import WireLimits


@pytest.fixture(autouse=True)
def empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_without_any_source_every_part_gets_its_own_defaults() -> None:
    settings = Settings.read()
    assert settings.engine.tuning() == Tuning()
    assert settings.limits() == WireLimits()
    assert settings.sqlite() == SqliteSettings()
    assert settings.store.url == "sqlite:///milepost.db"
    assert settings.http.port == 8000


def test_flags_beat_environment_beats_file_beats_defaults_key_by_key(
    empty_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (empty_place / "milepost.toml").write_text(
        '[http]\nport = 1\nhost = "h"\nmax_body = 10\n[engine]\nrun_timeout = "2h"\n[tools.x]\nlane = "stateful"\n'
    )
    monkeypatch.setenv("MILEPOST_HTTP_PORT", "2")
    monkeypatch.setenv("MILEPOST_HTTP_HOST", "e")
    monkeypatch.setenv("MILEPOST_ENGINE_ANSWER_WITHIN", "1d")
    monkeypatch.setenv("MILEPOST_RELEASE", "r7")
    settings = Settings.read(http={"port": 3}, release=None)
    assert (settings.http.port, settings.http.host, settings.http.max_body) == (3, "e", 10)
    assert settings.engine.tuning().run_timeout == 7200
    assert settings.engine.tuning().answer_within == 86400
    assert settings.release == "r7"
    assert settings.tools == {"x": {"lane": "stateful"}}


def test_the_environment_sets_values_of_every_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILEPOST_HTTP_ALLOWED_HOSTS", "a.example,b.example:*")
    monkeypatch.setenv("MILEPOST_HTTP_MAX_BODY", "1000")
    monkeypatch.setenv("MILEPOST_HTTP_CHECK_HOSTS", "false")
    monkeypatch.setenv("MILEPOST_HTTP_MAX_WAIT", "2m")
    monkeypatch.setenv("MILEPOST_SINGLE_USER", "true")
    settings = Settings.read()
    limits = settings.limits()
    assert list(limits.allowed_hosts) == ["a.example", "b.example:*"]
    assert (limits.max_body, limits.check_hosts, limits.max_wait, limits.single_user) == (1000, False, 120.0, True)
    monkeypatch.setenv("MILEPOST_HTTP_MAX_BODY", "-1")
    with pytest.raises(ConfigurationError, match="-1 is below 0"):
        Settings.read()


def test_a_named_file_is_taken_from_the_flag_or_the_environment(
    empty_place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (empty_place / "a.toml").write_text('release = "a"')
    (empty_place / "b.toml").write_text('release = "b"')
    monkeypatch.setenv("MILEPOST_CONFIG", "a.toml")
    assert Settings.read().release == "a"
    assert Settings.read("b.toml").release == "b"


def test_each_section_reaches_the_part_that_it_is_for() -> None:
    settings = Settings.read(
        single_user=True,
        sessions={"idle": "1h", "max": 5},
        store={"keep_runs": "2d", "poll": 0.5},
        engine={"reattach_window": "5m", "same_run": "never", "park_for": 60},
        http={"allowed_hosts": "a.example, b.example", "max_wait": "off", "request_state_keys": "ab" * 32},
    )
    limits = settings.limits()
    assert limits.single_user
    assert limits.max_sessions == 5
    assert list(limits.allowed_hosts) == ["a.example", "b.example"]
    assert limits.max_wait is None
    assert list(limits.request_state_keys) == [b"\xab" * 32]
    assert settings.engine.tuning().same_call == SameCallRules("never", 300.0)
    store = settings.sqlite()
    assert (store.retention.runs, store.retention.session_idle, store.poll, store.park_for) == (172800, 3600, 0.5, 60)


def test_beyond_loopback_hosts_are_checked_only_against_names_that_were_set() -> None:
    assert Settings.read().limits().check_hosts
    assert not Settings.read(http={"host": "0.0.0.0"}).limits().check_hosts  # noqa: S104  what is tested
    assert Settings.read(http={"host": "::", "allowed_hosts": ["me.example"]}).limits().check_hosts


@pytest.mark.parametrize(
    ("text", "flags", "says"),
    [
        ("[engin]\n", {}, "there is no setting or section 'engin' (did you mean 'engine'?)"),
        ("[engine]\nleas = 1\n", {}, "setting engine: no setting 'leas' (did you mean 'lease'?)"),
        ("[engine]\nlease = -1\n", {}, "-1 is below 0"),
        ("[engine]\nattempts = -1\n", {}, "-1 is below 0"),
        ("[engine]\nlease = 'soon'\n", {}, "'soon' is not a duration"),
        ("[engine]\nsame_run = 'maybe'\n", {}, "setting engine.same_run: input should be 'ask', 'always' or 'never'"),
        ("[http]\nport = 'x'\n", {}, "setting http.port: input should be a valid integer"),
        ("[http]\nrequest_state_keys = ['zz']\n", {}, "hex digits"),
        ("[http]\nrequest_state_keys = ['abcd']\n", {}, "at least 32 bytes"),
        ("engine = 3\n", {}, "setting engine: "),
        ("a = \n", {}, "milepost.toml is not valid TOML"),
        ("", {"config": "gone.toml"}, "there is no file gone.toml"),
    ],
)
def test_a_wrong_setting_is_named_in_one_sentence(
    empty_place: Path, text: str, flags: dict[str, Any], says: str
) -> None:
    (empty_place / "milepost.toml").write_text(text)
    with pytest.raises(ConfigurationError) as caught:
        Settings.read(**flags)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_section_can_not_be_an_environment_variable_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILEPOST_STORE", "sqlite:///x.db")
    with pytest.raises(ConfigurationError, match="set its keys"):
        Settings.read()


def test_a_file_that_can_not_be_read_is_named(empty_place: Path) -> None:
    (empty_place / "bad.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"bad\.toml can't be read"):
        Settings.read("bad.toml")
