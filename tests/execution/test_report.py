"""The report's numbers, in whatever order they were heard."""

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
