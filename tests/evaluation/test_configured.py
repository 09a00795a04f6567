"""A request names its graders: by a file in conf/grader/, by a path, or as the service's JSON."""

from pathlib import Path

import pytest

from runner.errors import RequestError
from runner.evaluation.configured import key_of, named
from runner.graders import configuration, make

SAME = {"type": "string_check", "input": "{{sample.output_text}}", "reference": "{{item.answer}}", "operation": "eq"}


def test_a_name_is_a_file_among_the_runners_own() -> None:
    [grader] = named(["house_style"])
    assert grader.type == "pattern"
    assert grader.name == "house_style"


def test_ones_own_file_comes_before_the_runners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf" / "grader").mkdir(parents=True)
    (tmp_path / "conf" / "grader" / "house_style.yaml").write_text("type: length\nunit: words\nmax: 8\n")
    (tmp_path / "mine.json").write_text('{"type": "length", "unit": "words", "max": 9}')
    own, other = named(["house_style", "mine.json"])
    assert (own.type, own.name) == ("length", "house_style")
    assert other.name == "mine"


def test_a_configuration_without_a_name_is_called_by_its_type() -> None:
    assert [each.name for each in named([SAME, SAME | {"name": "exact"}])] == ["string_check", "exact"]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (["hous_style"], "evaluation.graders[0]: hous_style not found; allowed: "),
        ([SAME, SAME], "evaluation.graders: the name string_check is taken; give the grader another `name`."),
        ([SAME | {"name": "reward_accuracy"}], "evaluation.graders: the name reward_accuracy is taken"),
        ([SAME | {"name": "a b"}], "evaluation.graders: the name 'a b' cannot be a metric's"),
        ([{"type": "nonsense"}], "evaluation.graders[0]: got type 'nonsense'; allowed: "),
        ([SAME | {"operation": "is"}], "evaluation.graders[0]: string_check: Invalid enum value 'is'"),
        ([SAME | {"input": "{{ output }}"}], "evaluation.graders[0]: got '{{ output }}'; allowed in braces"),
    ],
)
def test_a_grader_that_cannot_work_is_refused_in_a_sentence(wanted: list[object], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        named(wanted)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_the_key_of_a_grader_changes_with_what_it_does_and_not_with_a_secret() -> None:
    one, other = named([SAME, SAME | {"operation": "ne", "name": "other"}])
    assert key_of(one) != key_of(other)
    endpoint = {"type": "endpoint", "url": "https://example.org/grade", "headers": {"x-key": "abc"}}
    first, second = make(endpoint, "here"), make(endpoint | {"headers": {"x-key": "def"}}, "here")
    assert key_of(first) == key_of(second)
    assert "abc" not in str(configuration(first))


def test_a_secret_is_not_written_into_a_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    endpoint = {"type": "endpoint", "url": "https://example.org/grade", "headers": {"x-key": "abc"}}
    with pytest.raises(RequestError) as caught:
        named([endpoint])
    assert str(caught.value).startswith("evaluation.graders[0]: endpoint: a secret is written down in a request")
    assert "abc" not in str(caught.value)
    (tmp_path / "own.yaml").write_text("type: endpoint\nurl: https://example.org/grade\nheaders: {x-key: abc}\n")
    assert [each.name for each in named(["own.yaml", endpoint | {"headers": {"x-key": "$KEY"}}])] == ["own", "endpoint"]
