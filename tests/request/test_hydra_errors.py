"""Hydra's errors, raised by Hydra itself, as sentences: place, what was found, what is allowed, the fix."""

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException

from runner.errors import ModelError, RequestError, RunnerError
from runner.request import hydra_config, hydra_errors


def sentence(*overrides: str) -> str:
    """Return what is reported of a request that cannot be composed."""
    GlobalHydra.instance().clear()
    hydra_config.register()
    with (
        initialize_config_dir(str(hydra_config.home() / "conf"), version_base="1.3"),
        pytest.raises((HydraException, ValueError)) as raised,
    ):
        compose("config", list(overrides))
    reported = hydra_errors.sentence(raised.value)
    assert isinstance(reported, RequestError)
    return str(reported)


NOT_AN_OPTION = "which is none of the options that --help lists"
NO_OPTION = (
    "command line: a group, as backend or tracking, takes the name of an option, and got null or a number; --help "
    "lists the options (tracking=none keeps no record)."
)
WRONG = [
    ("dataset=mine.jsonl", f"dataset: got 'mine.jsonl', {NOT_AN_OPTION}; write dataset=files dataset.train=mine.jsonl"),
    ("dataset=a/b.csv", f"dataset: got 'a/b.csv', {NOT_AN_OPTION}; write dataset=files dataset.train=a/b.csv"),
    ("dataset=/a/b.csv", f"dataset: got '/a/b.csv', {NOT_AN_OPTION}; write dataset=files dataset.train=/a/b.csv"),
    (
        "dataset=org/name",
        "dataset: got 'org/name'; allowed: files, house_style, house_style_sft; other data is read from files: "
        "dataset=files dataset.train=FILE.",
    ),
    (
        "model=Qwen/Qwen2.5-0.5B",
        f"model: got 'Qwen/Qwen2.5-0.5B', {NOT_AN_OPTION}; write model.source=hf:Qwen/Qwen2.5-0.5B",
    ),
    ("model=smollm", "model: got 'smollm'; did you mean smollm2? allowed: hosted, session, smollm2, tinker."),
    ("method=dop", "method: got 'dop'; did you mean dpo? allowed: dpo, kto, orpo, reward, rft, sft, simpo."),
    (
        "lr=1e-4",
        "lr: no such key; did you mean backend.learning_rate or dpo.learning_rate_multiplier or "
        "kto.learning_rate_multiplier or reward.learning_rate_multiplier or rft.learning_rate_multiplier or "
        "sft.learning_rate_multiplier? --cfg job shows all keys of a request.",
    ),
    ("output_dir=out", "output_dir: no such key; did you mean runs_folder? --cfg job shows all keys of a request."),
    ("xylophone=1", "xylophone: no such key; --cfg job shows all keys of a request."),
    ("sft.n_epochs=1", "sft.n_epochs: belongs to method=sft, which this request does not choose; choose it, or leave "
     "the key out."),
    ("experiments=one", "experiments: a named request is added, not set; write +experiments=NAME."),
    ("tracking=null", NO_OPTION),
    ("backend=5", NO_OPTION),
    ("+dpo.beta=1", "dpo.beta: this key exists already; leave out the + before it."),
]  # fmt: skip


@pytest.mark.parametrize(("override", "reported"), WRONG, ids=[override for override, _ in WRONG])
def test_a_request_that_cannot_be_composed_is_reported_in_a_sentence(override: str, reported: str) -> None:
    assert sentence(override) == reported


def test_an_error_that_has_its_sentence_already_keeps_it() -> None:
    error = ModelError("run one: not found.")
    assert hydra_errors.sentence(error) is error


def test_what_the_system_refuses_names_the_file() -> None:
    reported = hydra_errors.sentence(OSError(13, "Permission denied", "/root/x.jsonl"))
    assert type(reported) is RunnerError
    assert str(reported).startswith("/root/x.jsonl: Permission denied; ")


def test_a_bug_has_no_sentence() -> None:
    assert hydra_errors.sentence(ZeroDivisionError("division by zero")) is None
    assert hydra_errors.sentence(OSError("no number")) is None
