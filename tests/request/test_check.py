"""A composed request becomes frozen values, or a list of what is wrong."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from runner import backends, methods
from runner.errors import RequestError
from runner.request import check, hydra_config, keys

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def hydra_is_fresh() -> None:
    GlobalHydra.instance().clear()


def composed(*overrides: str) -> dict[str, Any]:
    hydra_config.register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        content: Any = OmegaConf.to_container(compose("config", list(overrides)), resolve=True)
    return dict(content)


def test_the_default_request_is_dpo_on_the_embedded_data() -> None:
    request = check.request(composed())
    assert (request.method, request.backend.name, request.mode) == ("dpo", "local", "run")
    assert request.dataset.train == "embedded:house_style.train.dpo.jsonl"
    assert request.hyperparameters == methods.load("dpo").hyperparameters()


OPTIONS = [path for path in (ROOT / "conf").glob("*/*.yaml") if path.parent.name != "grader"]
"""Graders are named in a list, and are no options that Hydra composes: tests/graders/test_examples.py."""


@pytest.mark.parametrize("path", sorted(OPTIONS), ids=lambda path: f"{path.parent.name}={path.stem}")
def test_every_option_composes_and_says_how_it_is_used(path: Path) -> None:
    needed = ["rft.grader=string_check"] if path.stem == "rft" else []
    mine = ["dataset.train=mine.jsonl", "dataset.validation=null"]
    check.request(composed(f"{path.parent.name}={path.stem}", *mine, *needed))
    lines = path.read_text("utf-8").splitlines()
    assert any(
        f"python -m runner {path.parent.name}={path.stem}" in line or "python -m runner " in line for line in lines[:2]
    )
    assert len(lines) <= 50


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_experiment_composes(path: Path) -> None:
    check.request(composed(f"+experiments={path.stem}"))
    assert f"+experiments={path.stem}" in path.read_text("utf-8") or f",{path.stem}" in path.read_text("utf-8")


def test_seed_zero_and_whole_numbers_for_fractions_are_taken_as_they_are() -> None:
    request = check.request(composed("seed=0", "dpo.beta=1", "dpo.rpo_alpha=0"))
    assert (request.seed, request.hyperparameters.beta, request.hyperparameters.rpo_alpha) == (0, 1.0, 0.0)


def test_all_that_is_wrong_is_reported_at_once() -> None:
    with pytest.raises(RequestError) as reported:
        check.request(composed("seed=-1", "dpo.beta=0", "+dataset.trian=x"))
    assert str(reported.value).splitlines() == [
        "seed: got -1; allowed: an integer ≥ 0.",
        "dataset.trian: no such key; did you mean dataset.train? allowed: "
        + ", ".join(f"dataset.{field.name}" for field in fields(keys.Dataset))
        + ".",
        "dpo.beta: got 0; allowed: a number > 0 or 'auto'.",
    ]


@pytest.mark.parametrize(
    ("overrides", "reported"),
    [
        (["dpo.label_smoothing=0.5"], "dpo.label_smoothing: got 0.5; allowed: a number ≥ 0 and < 0.5."),
        (["dpo.loss_type=dpo"], "dpo.loss_type: got 'dpo'; allowed: 'apo_zero' or 'hinge' or 'ipo' or "),
        (
            ["dpo.loss_type=hinge", "dpo.label_smoothing=0.1"],
            "dpo.label_smoothing: got 0.1, but dpo.loss_type=hinge does not use it; "
            "leave it out, or take a loss that has: sigmoid, robust, simpo.",
        ),
        (["dpo.loss_type=robust"], "dpo.label_smoothing: got 0.0, but dpo.loss_type=robust needs a value above; give "),
        (["dpo.gamma=0.5"], "dpo.gamma: got 0.5, but dpo.loss_type=sigmoid does not use it; leave it out, or take"),
        (
            ["method=simpo", "dpo.length_normalised=true"],
            "dpo.length_normalised: got True, but dpo.loss_type=simpo compares answers per token anyway; leave it out",
        ),
        (["dpo.loss_type=ipo", "dpo.length_normalised=true"], "dpo.length_normalised: got True, but dpo.loss_type=ipo"),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_keys_that_do_not_go_with_the_loss_are_refused(overrides: list[str], reported: str) -> None:
    with pytest.raises(RequestError) as refused:
        check.request(composed(*overrides))
    assert str(refused.value).startswith(reported)


def test_all_keys_that_do_not_go_with_the_loss_are_reported_at_once() -> None:
    with pytest.raises(RequestError) as refused:
        check.request(composed("method=orpo", "dpo.gamma=1", "dpo.label_smoothing=0.1", "dpo.length_normalised=true"))
    assert [line.partition(":")[0] for line in str(refused.value).splitlines()] == [
        "dpo.label_smoothing",
        "dpo.length_normalised",
        "dpo.gamma",
    ]


@pytest.mark.parametrize("name", ["simpo", "orpo"])
def test_a_loss_that_is_asked_for_as_a_method_is_dpo_with_that_loss(name: str) -> None:
    request = check.request(composed(f"method={name}"))
    assert (request.method, request.hyperparameters.loss_type) == ("dpo", name)


def test_every_key_has_a_type_that_can_be_reported() -> None:
    owners = [keys.RootKeys, *keys.SECTIONS.values()]
    owners += [methods.load(name).hyperparameters for name in methods.names()]
    owners += [backends.keys(name) for name in hydra_config.options(backends)]
    for owner in owners:
        for key, hint in get_type_hints(owner, include_extras=True).items():
            if not hasattr(hint, "__dataclass_fields__"):
                assert check.describe(hint), key


def test_a_backends_keys_are_those_of_its_settings() -> None:
    assert all(backends.load(name).settings is backends.keys(name) for name in backends.names())


def test_defaults_pass_their_own_check() -> None:
    for name in methods.names():
        owner = methods.load(name).hyperparameters
        values = asdict(owner())
        missing = [key for key, value in values.items() if value == "???"]
        assert [each.partition(": missing")[0] for each in check._problems("", values, owner)] == missing


def test_the_folder_of_runs_can_be_named_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra takes a key for a group where the search path, the current folder too, has a folder of that name."""
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    assert composed("runs_folder=elsewhere")["runs_folder"] == "elsewhere"


@pytest.mark.parametrize("override", ["backend.name=Local", "backend.name=null", "method={a: 1}"])
def test_a_method_or_backend_that_there_is_not_is_refused_with_those_there_are(override: str) -> None:
    group = override.partition(".")[0].partition("=")[0]
    with pytest.raises(RequestError, match=rf"^{group}: got .*; choose {group}=NAME; allowed: .*(local|dpo)"):
        check.request(composed(override))


@pytest.mark.parametrize("value", [3, None])
def test_a_value_in_place_of_a_section_is_refused_with_the_section_s_keys(value: object) -> None:
    content = composed()
    content["backend"]["lora"] = value
    with pytest.raises(
        RequestError, match=rf"^backend\.lora: got {value}; it has keys of its own: backend\.lora\.rank, "
    ):
        check.request(content)


@pytest.mark.parametrize(
    ("typed", "holds"),
    [
        ("rft.grader={type: endpoint, headers: {Authorization: abc}}", True),
        ("evaluation.graders=[{type: endpoint, 'headers': {'x-key': 'abc'}}]", True),
        ("rft.grader={type: endpoint, headers: {a: $ONE, b: c d}}", True),
        ("rft.grader={type: endpoint, headers: {Authorization: 'Bearer abc'}}", True),
        ("rft.grader={type: endpoint, headers: {Authorization: 'Bearer $ONE', b: $TWO}}", False),
        ("rft.grader={type: endpoint, headers: {}}", False),
        ("dataset.train=headers.jsonl", False),
    ],
)
def test_a_header_that_is_typed_with_its_value_is_noticed(typed: str, holds: bool) -> None:
    assert check.holds_header(typed) == holds
