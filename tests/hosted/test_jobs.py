"""What a job is asked for, which of the service's jobs are a plan's, which of several stands for it, how it ended."""

from dataclasses import asdict, fields, replace
from itertools import permutations
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("openai")

from runner.backends.foundry.backend import BACKEND
from runner.backends.foundry.keys import Foundry
from runner.errors import EndedError, RequestError
from runner.hosted import follow
from runner.hosted import methods as wire_forms
from runner.hosted.jobs import ENDED, FAILED, PLAN_ID, arguments, default_suffix, is_of, winner
from runner.methods import dpo, sft
from runner.methods.dpo import DPO
from runner.methods.sft import SFT
from runner.models.source import ModelIdentity
from runner.plan import DataIdentity, Plan
from tests.data.samples import unhurried

_, HYPERPARAMETERS, REASONS = BACKEND.resolve(Foundry(), dpo.METHOD, DPO(n_epochs=3, learning_rate_multiplier=1.5), 20)
PLAN = Plan(
    format=1,
    method="dpo",
    hyperparameters=asdict(HYPERPARAMETERS),
    train=DataIdentity(rows=20, fingerprint="a"),
    validation=DataIdentity(rows=5, fingerprint="b"),
    model=ModelIdentity("hosted:gpt-4.1-mini", ""),
    backend="foundry",
    settings={"training_type": "GlobalStandard"},
    evaluation={},
    seed=42,
)
FILES = {"train": "file-1", "validation": "file-2"}
SUFFIX = default_suffix(PLAN.id)


def test_a_preference_job_is_asked_for_as_the_service_has_it() -> None:
    assert arguments(PLAN, "gpt-4.1-mini", FILES, SUFFIX, {"trainingType": "GlobalStandard"}) == {
        "model": "gpt-4.1-mini",
        "training_file": "file-1",
        "validation_file": "file-2",
        "method": {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 3, "learning_rate_multiplier": 1.5}}},
        "seed": 42,
        "suffix": SUFFIX,
        "extra_body": {"trainingType": "GlobalStandard"},
    }


def test_what_a_hosted_job_does_not_take_is_settled_with_a_reason_and_the_rest_is_left_to_the_service() -> None:
    assert DPO(n_epochs=3, learning_rate_multiplier=1.5, rpo_alpha=0.0, gamma=0.0) == HYPERPARAMETERS
    assert dict.fromkeys(("dpo.rpo_alpha", "dpo.gamma"), "what a hosted job does") == REASONS
    assert BACKEND.resolve(Foundry(), sft.METHOD, SFT(), 20) == (Foundry(), SFT(), {})


@pytest.mark.parametrize(
    ("key", "value"),
    [("loss_type", "ipo"), ("rpo_alpha", 0.5), ("label_smoothing", 0.1), ("length_normalised", True), ("gamma", 1.0)],
)
def test_another_value_than_what_a_hosted_job_does_is_refused(key: str, value: Any) -> None:
    with pytest.raises(RequestError, match=rf"^dpo\.{key}: got {value}; hosted jobs have no such option"):
        BACKEND.resolve(Foundry(), dpo.METHOD, DPO(**{key: value}), 20)


def test_each_key_is_one_the_service_takes_or_settled() -> None:
    for method in (dpo.METHOD, sft.METHOD):
        asked = {field.name for field in fields(method.hyperparameters)} - wire_forms.load(method.name).fixed.keys()
        # https://platform.openai.com/docs/api-reference/fine-tuning/create
        assert asked == {"n_epochs", "batch_size", "learning_rate_multiplier"} | (
            {"beta"} if method.name == "dpo" else set()
        )


def test_a_supervised_job_goes_by_the_services_name() -> None:
    plan = replace(PLAN, method="sft", hyperparameters={"n_epochs": 2, "batch_size": 4}, validation=None)
    asked = arguments(plan, "gpt-4.1", {"train": "file-1"}, SUFFIX, {"trainingType": "GlobalStandard"})
    assert asked["method"] == {
        "type": "supervised",
        "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 4}},
    }
    assert "validation_file" not in asked


def test_nothing_is_asked_for_with_null() -> None:
    for files in (FILES, {"train": "file-1"}):
        asked = arguments(PLAN, "gpt-4.1-mini", files, SUFFIX, {"trainingType": "GlobalStandard"})
        assert None not in asked.values()
        assert None not in asked["method"]["dpo"]["hyperparameters"].values()


def test_a_suffix_is_what_the_service_takes_and_reports_the_plan() -> None:
    assert len(SUFFIX) == 18
    assert SUFFIX.startswith("r-")
    assert PLAN.id.startswith(SUFFIX[2:])


def job(**keys: Any) -> SimpleNamespace:
    known: dict[str, Any] = {"metadata": None, "fine_tuned_model": None, "model_extra": {}, "status": "running"}
    return SimpleNamespace(**{"id": "ftjob-1", "created_at": 1} | known | keys)


@pytest.mark.parametrize(
    ("found", "ours"),
    [
        (job(metadata={PLAN_ID: PLAN.id}), True),
        (job(metadata={PLAN_ID: PLAN.id, "other": "x"}, fine_tuned_model="ft:gpt:org::x"), True),
        (job(metadata={PLAN_ID: "another"}), False),
        (job(metadata={PLAN_ID: "another"}, fine_tuned_model=f"ft:gpt:org:{SUFFIX}:x"), False),
        (job(fine_tuned_model=f"ft:gpt-4.1-mini:org:{SUFFIX}:Ab12"), True),
        (job(fine_tuned_model=f"gpt-4.1-mini-2025-04-14.ft-0123-{SUFFIX}"), True),
        (job(metadata={}, model_extra={"suffix": SUFFIX}), True),
        (job(metadata={"other": "x"}, model_extra={"user_provided_suffix": SUFFIX}), True),
        (job(model_extra=None), False),
        (job(model_extra={"suffix": None}), False),
        (job(model_extra={"suffix": "r-0000000000000000"}), False),
        (job(fine_tuned_model="ft:gpt-4.1-mini:org::Ab12"), False),
        (job(), False),
    ],
)  # fmt: skip
def test_a_job_is_a_plans_by_its_metadata_else_by_its_suffix(found: SimpleNamespace, ours: bool) -> None:
    assert is_of(found, PLAN.id, SUFFIX) is ours


def test_a_suffix_that_a_user_chose_says_nothing_of_the_plan() -> None:
    named = job(fine_tuned_model="ft:gpt:org:mine:x", model_extra={"suffix": "mine"})
    assert not is_of(named, PLAN.id, "mine")
    assert is_of(job(metadata={PLAN_ID: PLAN.id}), PLAN.id, "mine")


def test_the_oldest_job_that_may_still_succeed_counts_for_a_plan() -> None:
    failed, first = job(id="c", status="failed", created_at=1), job(id="b", created_at=2)
    second, twin = job(id="a", status="succeeded", created_at=3), job(id="a", created_at=2)
    for jobs in permutations([failed, first, second]):
        assert winner(jobs) is first
    assert winner([first, twin]) is winner([twin, first]) is twin
    assert winner([failed]) is failed
    assert winner([]) is None


STATUSES = [
    "created",
    "pending",
    "validating_files",
    "queued",
    "running",
    "paused",
    "awaiting_capacity",
    *sorted(ENDED),
]
JOBS = st.builds(
    job, id=st.uuids().map(str), status=st.sampled_from(STATUSES), created_at=st.integers(0, 3)
)  # fmt: skip


@unhurried
@given(st.lists(JOBS, min_size=1, unique_by=lambda each: each.id), st.randoms())
def test_every_machine_finds_the_same_winner(jobs: list[SimpleNamespace], random: Any) -> None:
    shuffled = list(jobs)
    random.shuffle(shuffled)
    found = winner(jobs)
    assert winner(shuffled) is found
    alive = [each for each in jobs if each.status not in FAILED]
    assert not alive or found in alive
    assert found.created_at == min(each.created_at for each in alive or jobs)


def ended(**keys: Any) -> str:
    with pytest.raises(EndedError) as error:
        follow.ended(job(**{"trained_tokens": None, "error": None} | keys))
    return str(error.value)


def test_a_job_with_a_model_ended_well() -> None:
    follow.ended(job(status="succeeded", fine_tuned_model="ft:gpt:org::x"))


@pytest.mark.parametrize(
    "error",
    [None, {}, SimpleNamespace(), SimpleNamespace(code=None, message=None), SimpleNamespace(code="", message="")],
    ids=repr,
)
def test_a_failure_without_a_reason_says_so(error: Any) -> None:
    assert "the job failed: the service gives no reason" in ended(status="failed", error=error)


def test_what_an_end_costs_and_what_continues_from_it_are_reported() -> None:
    error = SimpleNamespace(code="exceeded_quota", message="Too many tokens.")
    reported = ended(status="failed", error=error, trained_tokens=12_345)
    assert reported == (
        "ftjob-1: the job failed: exceeded_quota: Too many tokens; 12,345 trained tokens may be billed; "
        "fix what it names, then again=true creates a new job."
    )
    assert "no tokens were trained" in ended(status="cancelled", trained_tokens=0)
    assert "was cancelled at the service" in ended(status="cancelled")
    assert "the service names no model" in ended(status="succeeded")


def test_a_reason_keeps_no_secret() -> None:
    error = SimpleNamespace(code=None, message="Could not read https://x.blob/y?sv=1&sig=abc%2Fdef&se=2")
    assert "abc%2Fdef" not in ended(status="failed", error=error)


def test_a_reason_of_many_lines_is_reported_in_one() -> None:
    error = SimpleNamespace(code="invalid", message="Line 3:\n  no assistant.\nLine 4:\r\n  no assistant.")
    assert len(ended(status="failed", error=error).splitlines()) == 1


def test_a_reason_that_continues_for_pages_is_cut() -> None:
    assert len(ended(status="failed", error=SimpleNamespace(code="invalid", message="row " * 5000))) < 1000


def test_checkpoints_are_listed_by_step() -> None:
    found = [SimpleNamespace(fine_tuned_model_checkpoint=f"m:ckpt-{step}", step_number=step) for step in (30, 10, 20)]
    assert [each["step"] for each in follow.checkpoints(found)] == [10, 20, 30]
    assert list(follow.checkpoints(found[:1])) == [{"model": "hosted:m:ckpt-30", "step": 30}]
