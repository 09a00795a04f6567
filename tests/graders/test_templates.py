"""`{{ item.KEY }}` and `{{ sample.KEY }}` mean what they mean at the service."""

import pytest

from runner.graders import Json, Sample, Subject
from runner.graders.templates import MissingValueError, missing, paths, problems, render, warnings
from tests.pictures import ADDRESS, part, picture
from tests.pictures import asked as user_turn

CALL: Json = {"type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
ITEM: dict[str, Json] = {
    "answer": "Paris",
    "count": 3,
    "facts": {"capital": "Rome", "size": [1, 2.5]},
    "empty": None,
    "trap": "{{ item.answer }}",
    "name with-dash": "dash",
    "city": "Zürich",
}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ item.answer }}", "Paris"),
        ("{{item.answer}}", "Paris"),
        ("{{   item.answer}}", "Paris"),
        ("It is {{ item.answer }}, not {{ item.facts.capital }}.", "It is Paris, not Rome."),
        ("{{ item.count }}", "3"),
        ("{{ item.facts }}", '{"capital": "Rome", "size": [1, 2.5]}'),
        ("{{ item.facts.size[1] }}", "2.5"),
        ("{{ item.empty }}", "null"),
        ("{{ item.trap }}", "{{ item.answer }}"),
        ("{{ item.city }}", "Zürich"),
        ("{{ sample.output_text }}", '{"a": [true]}'),
        ("{{ sample.output_json }}", '{"a": [true]}'),
        ("{{ sample.output_json.a }}", "[true]"),
        ("{{ sample.output_tools[0].function.name }}", "get_weather"),
        ("{{ sample.choices[0].message.content }}", '{"a": [true]}'),
        ("{{ sample.choices[0].finish_reason }}", "tool_calls"),
        ("no braces, { one } {{", "no braces, { one } {{"),
        ("", ""),
    ],
)
def test_a_template_is_filled(template: str, text: str) -> None:
    assert render(template, Subject(ITEM, Sample('{"a": [true]}', tool_calls=[CALL]))) == text


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ item.turn.content }}", "Which tree [image] is it?"),
        ("{{ item.turn.content[1] }}", "[image]"),
        ("{{ item.turn.content[1].image_url.url }}", ADDRESS),
        ("{{ item.files }}", '{"before": "[image]", "after": ["cut", "[image]"]}'),
        ("{{ item.parts }}", '[{"type": "text", "text": "no image"}]'),
    ],
)
def test_an_image_is_inserted_as_a_mark_unless_its_address_is_asked_for(template: str, text: str) -> None:
    [turn] = user_turn("Which tree ", part(ADDRESS), {"type": "text", "text": " is it?"})
    files: Json = {"before": part(picture()), "after": ["cut", part(ADDRESS)]}
    item: dict[str, Json] = {"turn": turn, "files": files, "parts": [{"type": "text", "text": "no image"}]}
    assert render(template, Subject(item, Sample(""))) == text


@pytest.mark.parametrize(
    ("template", "error"),
    [
        ("{{ item.absent }}", "item.absent is missing"),
        ("{{ item.answer.more }}", "item.answer.more is missing"),
        ("{{ item.facts.size[2] }}", "item.facts.size[2] is missing"),
        ("{{ sample.output_json }}", "sample.output_json is missing: the answer is not JSON"),
        (
            "{{ sample.output_tools[0].function.name }}",
            "sample.output_tools[0].function.name is missing: the answer calls no tool",
        ),
    ],
)
def test_a_value_that_is_missing_is_named(template: str, error: str) -> None:
    with pytest.raises(MissingValueError) as reported:
        render(template, Subject(ITEM, Sample("no JSON: NaN")))
    assert str(reported.value) == error


def test_a_template_says_which_values_it_inserts() -> None:
    assert paths("a {{ item.x.y }} b {{sample.output_tools[0].id}} {{ item.z }}") == [
        ("item", "x.y"),
        ("sample", "output_tools[0].id"),
        ("item", "z"),
    ]
    assert paths("{{ other.x }}") == []


def test_a_row_lacks_the_keys_that_some_template_names() -> None:
    templates = ["{{ item.answer }} {{ item.absent }}", "{{ item.absent }} {{ item.facts.more }} {{ sample.choices }}"]
    assert missing(templates, ITEM) == ["item.absent", "item.facts.more"]


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{{ answer }}", "got '{{ answer }}'; allowed in braces are item.KEY and sample.KEY."),
        ("{{ row.answer }}", "got '{{ row.answer }}'; allowed in braces are item.KEY and sample.KEY."),
        ("{{ item. }}", "got '{{ item. }}'; allowed in braces are item.KEY and sample.KEY."),
        ("{{ item.a[x] }}", "got '{{ item.a[x] }}'; allowed in braces are item.KEY and sample.KEY."),
        (
            "{{ sample.text }}",
            "got sample.text; sample has output_text, output_json, output_tools, choices.",
        ),
    ],
)
def test_braces_around_anything_else_are_a_problem(template: str, problem: str) -> None:
    assert list(problems([template])) == [problem]


def test_an_index_in_item_may_not_work_at_the_service() -> None:
    assert len(list(warnings(["{{ item.a[0] }}"]))) == 1
    assert list(warnings(["{{ item.a }} {{ sample.output_tools[0].id }}"])) == []


@pytest.mark.parametrize("text", ["{{ item.answer", "{ item.answer }", "{sample.output_text}", "{{ item.answer }"])
def test_what_was_meant_as_a_template_and_is_none_is_a_warning(text: str) -> None:
    """It would be left as it is, and no answer equals it."""
    (reported,) = warnings([f"The answer: {text}"])
    assert reported.startswith(f"got '{text}', which is no template and stays as it is")


@pytest.mark.parametrize("text", ['{"a": {{ item.answer }}}', "{{{ item.answer }}}", "item.answer", '{"item": 1}'])
def test_braces_around_a_template_or_around_json_are_no_warning(text: str) -> None:
    assert list(warnings([text])) == []
