"""A job followed through a service whose clock is stopped: what is heard, in which order, and how often."""

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("azure.ai.projects")

from runner.backends.foundry.connect import Service
from runner.backends.foundry.keys import Azure
from runner.hosted.follow import Followed
from runner.hosted.keys import Polling
from runner.record.events import Event, Metrics, Said, State, Wait
from runner.record.journal import RunState
from tests.conftest import pair_row
from tests.emulator import Fault, Script
from tests.emulator.sdk import Client, connected

pytestmark = pytest.mark.slow

ONE_SECOND = Script(validating_seconds=0.1, queued_seconds=0.1, running_seconds=0.5)
MINUTES = Script(validating_seconds=30, queued_seconds=60, running_seconds=600)
STEPS = 36


@pytest.fixture(params=["strict", "lax"])
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    with connected(monkeypatch, request.param, speed=0) as client:
        yield client


@pytest.fixture
def there(client: Client) -> Iterator[Service]:
    there = Service(client.cloud.endpoint, Azure(), Polling(every=0.05, requests_per_second=10_000, patience=1))
    yield there
    there.close()


def begun(client: Client, script: Script) -> str:
    """Create a job at a whole second of the service's clock."""
    client.cloud.script = script
    file = client.upload([pair_row(number) for number in range(12)])
    client.cloud.advance(1 - client.cloud.clock.now() % 1)
    return str(client.order(training_file=file.id).id)


def followed(there: Service, client: Client, job: str, seconds: float) -> list[Event]:
    """Follow a job to its end, the clock continuing by so many seconds between two looks; return what is kept of it."""
    known, kept = RunState([]), []
    for event in Followed(there, job, "dpo").to_end():
        if isinstance(event, Wait):
            client.cloud.advance(seconds)
        news = known.news(event)
        if news is not None:
            known.apply(news)
            kept.append(news)
    return kept


def steps(heard: list[Event]) -> list[int]:
    return [event.step for event in heard if isinstance(event, Metrics)]


def said(heard: list[Event]) -> list[str]:
    return [event.text.partition(":")[0] for event in heard if isinstance(event, Said)]


@pytest.mark.parametrize("seconds", [7, 45, 400, 4000])
def test_metrics_come_once_and_in_their_order_however_often_one_looks(
    seconds: float, client: Client, there: Service
) -> None:
    heard = followed(there, client, begun(client, MINUTES), seconds)
    assert steps(heard) == list(range(1, STEPS + 1))
    times = [event.time for event in heard if isinstance(event, Metrics | Said)]
    assert times == sorted(times)  # type: ignore[type-var]
    assert said(heard)[-1] == "The job has successfully completed"


def test_a_job_that_was_not_followed_is_heard_of_from_its_beginning(client: Client, there: Service) -> None:
    job = begun(client, MINUTES)
    client.cloud.advance(4000)
    heard = followed(there, client, job, 1)
    assert steps(heard) == list(range(1, STEPS + 1))
    assert [event.value for event in heard if isinstance(event, State)] == ["succeeded"]


def test_what_happened_within_one_second_is_heard_in_its_order(client: Client, there: Service) -> None:
    job = begun(client, ONE_SECOND)
    client.cloud.advance(0.99)
    heard = followed(there, client, job, 1)
    assert steps(heard) == list(range(1, STEPS + 1))
    if client.cloud.lax:  # messages alone do not show which end a list begins with: the oldest, as Azure's
        assert said(heard)[0] == "Created fine-tuning job"


def test_more_events_than_a_page_holds_are_all_heard(client: Client, there: Service) -> None:
    steps_of: list[dict[str, Any]] = [{"train_loss": 1 / number} for number in range(1, 251)]
    job = begun(client, Script(validating_seconds=1, queued_seconds=1, running_seconds=600, steps=steps_of))
    assert steps(followed(there, client, job, 50)) == list(range(1, 251))


@pytest.mark.parametrize("kind", ["repeat_page", "shuffle_events"])
def test_a_list_that_comes_wrong_reports_the_same_in_the_end(kind: str, client: Client, there: Service) -> None:
    job = begun(client, MINUTES)
    client.cloud.inject(Fault("GET /fine_tuning/jobs/{id}/events", kind, times=None))
    assert set(steps(followed(there, client, job, 45))) == set(range(1, STEPS + 1))


def test_a_job_is_looked_at_less_often_while_it_waits_in_the_queue(client: Client, there: Service) -> None:
    job, every = begun(client, Script(validating_seconds=1, queued_seconds=10**6)), there.polling.every
    client.cloud.advance(5)
    following = Followed(there, job, "dpo")
    looks = iter(following.to_end())
    first = next(event.seconds for event in looks if isinstance(event, Wait))
    following._changed -= 3600  # an hour ago
    later = next(event.seconds for event in looks if isinstance(event, Wait))
    assert 0.8 * every <= first <= 1.3 * every
    assert 4 * 0.8 * every <= later <= 4 * 1.2 * every
