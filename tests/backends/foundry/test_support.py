"""What the table of models decides, over the real SDKs: what is sent, how a model is deployed, what a plan warns of."""

import json
from pathlib import Path

import pytest

pytest.importorskip("azure.ai.projects")

from runner import api, backends
from runner.backends.foundry import catalogue
from runner.cost import Tokens
from runner.errors import RequestError
from tests.emulator import Emulator
from tests.hosted.rehearsal import DEPLOYED, Make, carry_out, planned, standing

pytestmark = pytest.mark.slow

OPEN_MODEL = ("method=sft", "model.source=hosted:Ministral-3B", "sft.n_epochs=1", "sft.batch_size=4")


def forecast(folder: Path, *overrides: str, tokens: int = 1000) -> list[tuple[str, str]]:
    proposal = api.plan(
        "backend=foundry", "dataset=files", "mode=plan", f"dataset.train={folder}/train.jsonl",
        f"dataset.validation={folder}/held_out.jsonl", f"runs_folder={folder}/runs", "evaluation.samples=2", *overrides,
    )  # fmt: skip
    return list(backends.of(proposal.run).forecast(proposal, Tokens({"train": tokens}, exact=True)))


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ("Developer", "developerTier"),
        ("DataZoneStandard", "DatazoneStandard"),
        pytest.param("Standard", "Standard", marks=pytest.mark.exhaustive),
    ],
)
def test_the_training_type_is_sent_as_the_service_writes_it(
    asked: str, sent: str, cloud: Emulator, tmp_path: Path
) -> None:
    ended = carry_out(planned(tmp_path, tmp_path / "runs", f"backend.training_type={asked}"))
    assert ended.code == 0, ended.message
    assert cloud.created_jobs[0].training_type == sent


@pytest.mark.parametrize(
    ("sent", "words"),
    [("standard", "does not support fine-tuning with standard"), ("Developer", "The fineTuningJob field is required")],
    ids=["a type that the model does not have", "a value that the service does not know"],
)
def test_a_training_type_that_the_service_refuses_is_one_sentence_that_names_its_key(
    sent: str, words: str, cloud: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(catalogue.WIRE, "GlobalStandard", sent)
    ended = carry_out(planned(tmp_path, tmp_path / "runs", *OPEN_MODEL))
    assert ended.code == 2
    assert ended.message.startswith(
        f"backend.training_type: got GlobalStandard, sent as trainingType={sent}, which the service refuses for "
        "Ministral-3B in this project's region (creating the job: 400 "
    )
    assert words in ended.message
    assert not cloud.created_jobs


def test_a_tuned_open_model_is_deployed_under_its_publisher_answers_and_is_removed(make: Make, tmp_path: Path) -> None:
    cloud = make(style="lax")
    ended = carry_out(planned(tmp_path, tmp_path / "runs", *OPEN_MODEL, DEPLOYED))
    assert ended.code == 0, ended.message
    (put,) = (json.loads(each.body) for each in cloud.requests if each.method == "PUT")
    assert put["properties"]["model"]["format"] == "Mistral AI"
    assert put["sku"]["name"] == "GlobalStandard"
    assert len(ended.samples) == 2
    assert standing(cloud) == []


def test_a_way_to_deploy_that_a_model_does_not_have_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text("".join(f'{{"prompt": "{n}?", "completion": "{n}"}}\n' for n in range(20)))
    (tmp_path / "held_out.jsonl").write_text('{"prompt": "x?", "completion": "y"}\n' * 10)
    sku = [*OPEN_MODEL, "backend.deploy=keep", "backend.deployment.sku=DeveloperTier"]
    with pytest.raises(
        RequestError, match=r"^backend\.deployment\.sku: got DeveloperTier, .*; allowed: GlobalStandard;"
    ):
        forecast(tmp_path, *sku)
    served_elsewhere = [each.replace("Ministral-3B", "Qwen3.8-27B") for each in [*OPEN_MODEL, "backend.deploy=keep"]]
    with pytest.raises(RequestError, match=r"^backend\.deploy: a tuned Qwen3\.8-27B is served by Managed Compute"):
        forecast(tmp_path, *served_elsewhere)


def test_the_plan_of_a_retired_model_warns_says_until_when_and_what_replaces_it(
    cloud: Emulator, tmp_path: Path
) -> None:
    lines = dict(forecast(tmp_path, "dpo.n_epochs=3"))
    assert (
        "trained at least until 2027-04-14; deployed at least until 2027-10-14 (read 2026-10-05, https://"
        in (lines["model"])
    )
    assert lines["warning"].startswith(
        "gpt-4.1-mini is retired; in its place, for dpo: backend=foundry_sessions (gpt-oss"
    )
    assert lines["warning"].endswith("or backend=tinker")
    assert lines["limits"].startswith(
        "3 jobs run at a time and 20 wait at the service, further ones wait here for their turn; 100 jobs and 100 "
        "files are kept, and a job has up to 2 billion tokens × epochs and 720 hours (read 2026-02-17, "
    )
    current = dict(forecast(tmp_path, *OPEN_MODEL))
    assert current.keys() & {"model", "warning"} == set()
    assert not cloud.requests


def test_a_job_of_more_tokens_than_the_service_takes_is_warned_of(cloud: Emulator, tmp_path: Path) -> None:
    lines = forecast(tmp_path, "dpo.n_epochs=3", "backend.training_type=Developer", tokens=10**9)
    warnings = [text for title, text in lines if title == "warning"]
    assert "3 billion tokens × epochs are more than a job may have: the service refuses it" in warnings
    assert dict(lines)["limits"].startswith("5 jobs run at a time")
