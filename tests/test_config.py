"""A composed request becomes frozen values, or a list of what is wrong."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from runner import backends, config, methods
from runner.errors import RequestError

ROOT = Path(__file__).parent.parent


@pytest.fixture(autouse=True)
def hydra_is_fresh() -> None:
    GlobalHydra.instance().clear()


def composed(*overrides: str) -> dict[str, Any]:
    config.register()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        content: Any = OmegaConf.to_container(compose("config", list(overrides)), resolve=True)
    return dict(content)


def test_the_default_request_is_dpo_on_the_embedded_data() -> None:
    request = config.request(composed())
    assert (request.method, request.backend.name, request.top.mode) == ("dpo", "local", "run")
    assert request.dataset.train == "embedded:house_style.train.dpo.jsonl"
    assert request.hyperparameters == methods.load("dpo").hyperparameters()


@pytest.mark.parametrize(
    "path", sorted((ROOT / "conf").glob("*/*.yaml")), ids=lambda path: f"{path.parent.name}={path.stem}"
)
def test_every_option_composes_and_says_how_it_is_used(path: Path) -> None:
    config.request(composed(f"{path.parent.name}={path.stem}", "dataset.train=mine.jsonl", "dataset.validation=null"))
    lines = path.read_text("utf-8").splitlines()
    assert any(
        f"python -m runner {path.parent.name}={path.stem}" in line or "python -m runner " in line for line in lines[:2]
    )
    assert len(lines) <= 50


@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_experiment_composes(path: Path) -> None:
    config.request(composed(f"+experiments={path.stem}"))
    assert f"+experiments={path.stem}" in path.read_text("utf-8") or f",{path.stem}" in path.read_text("utf-8")


def test_seed_nought_and_whole_numbers_for_fractions_are_taken_as_they_are() -> None:
    request = config.request(composed("seed=0", "dpo.beta=1", "dpo.rpo_alpha=0"))
    assert (request.top.seed, request.hyperparameters.beta, request.hyperparameters.rpo_alpha) == (0, 1.0, 0.0)


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(RequestError) as told:
        config.request(composed("seed=-1", "dpo.beta=0", "+dataset.trian=x"))
    assert str(told.value).splitlines() == [
        "seed: got -1; allowed: an integer ≥ 0.",
        "dataset.trian: no such key; did you mean dataset.train? allowed: "
        + ", ".join(f"dataset.{field.name}" for field in fields(config.Dataset))
        + ".",
        "dpo.beta: got 0; allowed: a number > 0 or 'auto'.",
    ]


def test_every_key_has_a_type_that_can_be_told() -> None:
    owners = [config.Top, *config.SECTIONS.values()]
    owners += [methods.load(name).hyperparameters for name in config.options(methods)]
    owners += [backends.load(name).settings for name in config.options(backends)]
    for owner in owners:
        for key, hint in get_type_hints(owner, include_extras=True).items():
            if not hasattr(hint, "__dataclass_fields__"):
                assert config.describe(hint), key


def test_defaults_pass_their_own_check() -> None:
    for name in config.options(methods):
        owner = methods.load(name).hyperparameters
        assert list(config._problems("", asdict(owner()), owner)) == []


def test_the_folder_of_runs_can_be_named_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra takes a key for a group where the search path, the current folder too, has a folder of that name."""
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    assert composed("runs_folder=elsewhere")["runs_folder"] == "elsewhere"
