"""The report's numbers, in whatever order they were heard, and its texts, whatever they hold."""

import pytest
from markdown_it import MarkdownIt

from runner.execution import report
from runner.record.events import Event, Metrics, Note
from runner.record.journal import Record
from runner.record.outcome import last_values


def after(*events: Event) -> dict[str, float]:
    return last_values([Record(float(number), event) for number, event in enumerate(events)])


def test_the_last_value_of_each_metric_is_reported() -> None:
    reported = after(
        Metrics(1, {"train/loss": 0.7, "eval/loss": 0.8}),
        Note("x"),
        Metrics(2, {"train/loss": 0.6}),
        Metrics(0, {"a": 1}),
    )
    assert reported == {"train/loss": 0.6, "eval/loss": 0.8, "a": 1}


def test_a_step_that_is_heard_of_late_is_not_the_last() -> None:
    assert after(Metrics(8, {"train/loss": 0.1}), Metrics(3, {"train/loss": 0.5})) == {"train/loss": 0.1}


@pytest.mark.parametrize(
    "text",
    [
        "![seen](http://somewhere.example/x.png)", "<img src=x onerror=alert(1)>", "# head\n- one\n\n    four",
        "````\n```text\ninner\n```", "a|b \u202eright to left", "", "word " * 4000,
    ],
)  # fmt: skip
def test_what_a_model_has_written_is_no_markup_of_the_page(text: str) -> None:
    lines = report.shown([{"prompt": text, "before": text, "after": text}])
    blocks = [each for each in MarkdownIt().parse("\n".join(lines)) if each.type != "inline"]
    assert [each.content for each in blocks if each.type == "fence"] == [f"{text}\n"] * 3
    assert {each.type for each in blocks} == {"paragraph_open", "paragraph_close", "fence"}
