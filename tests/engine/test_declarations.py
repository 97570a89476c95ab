"""How a workflow is declared, and what is refused."""

from typing import Any

import pytest

from milepost import stage, step
from milepost.core.errors import ConfigurationError
from milepost.core.spec import StageSpec
from milepost.engine.verbs import make_spec, wrap_function


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"nonsense": 1}, "no option 'nonsense'"),
        ({"same_run": "sometimes"}, "'ask', 'always' or 'never'"),
        ({"version": 0}, "whole number"),
        ({"version": "2"}, "whole number"),
        ({"stages": ["a", "a"]}, "twice"),
    ],
)
def test_a_workflow_declared_wrongly_is_refused_in_words(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        make_spec(options)


def test_a_workflow_must_be_async() -> None:
    def sync() -> None: ...

    with pytest.raises(ConfigurationError, match="async def"):
        wrap_function(sync, make_spec({}))


def test_a_version_always_accepts_itself() -> None:
    assert make_spec({"version": 3, "accepts": {2}}).accepts == {2, 3}


def test_limits_are_written_in_code_as_in_settings() -> None:
    assert stage("booking", timeout="1h30m", answer_within="2w")._spec == StageSpec("booking", 5400.0, 1209600.0)
    assert stage("booking")._spec == StageSpec("booking")
    assert make_spec({"timeout": "1m30s"}).timeout == 90.0
    for verb in (lambda: stage("booking", timeout="soon"), lambda: step(timeout="soon")(len)):
        with pytest.raises(ValueError, match="'soon' is not a duration"):
            verb()
