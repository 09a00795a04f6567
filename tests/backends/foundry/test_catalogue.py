"""The table of models: names in every style find their model, a user's own table is taken, a broken one is reported."""

from datetime import date
from pathlib import Path

import pytest

pytest.importorskip("azure.ai.projects")

from runner.backends.foundry import deployment
from runner.backends.foundry.catalogue import SHIPPED, Catalogue, Model, catalogue
from runner.backends.foundry.keys import Deployment, Foundry
from runner.errors import RequestError

TABLE = """\
date: 2026-01
source: our contract
models:
  gpt-4.1-mini:
    methods: [sft]
    training_per_million_tokens: {Standard: 4}
  gpt-9:
    methods: [dpo]
    deployment_per_hour: 2.5
    max_row_tokens: 1000
"""


def table(folder: Path, text: str | bytes) -> Catalogue:
    path = folder / "models.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    catalogue.cache_clear()
    return catalogue(str(path))


@pytest.mark.parametrize("model", list(catalogue(None).models))
@pytest.mark.parametrize(
    "style",
    ["{}", "{}-2025-04-14", "ft:{}:org::Ab12", "ft:{}:org:r-0123456789abcdef:Ab12", "ft:{}-2024-07-18:org::Ab12",
     "{}.ft-0123456789abcdef", "{}-2025-04-14.ft-0123456789abcdef-r-0123456789abcdef",
     "ft:{}-2025-04-14:org::Ab12:ckpt-step-90"],
)  # fmt: skip
def test_a_name_finds_its_model_with_or_without_version_tuned_or_not(style: str, model: str) -> None:
    shipped = catalogue(None)
    assert shipped.find(style.format(model)) is shipped.models[model]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "gpt-9",
        "gpt-35-turbo",
        "gpt-4",
        "gpt",
        "o4",
        "my-gpt-4.1",
        "ft:",
        "gpt-4.1mini",
        "gpt-4.1-mini-audio",
        "gpt-4o-audio",
    ],
)
def test_a_model_that_is_not_in_the_table_is_neither_found_nor_refused(name: str) -> None:
    assert catalogue(None).find(name) is None
    catalogue(None).demand(name, "dpo")


@pytest.mark.parametrize("name", ["gpt-5.1", "gpt-5.1-mini", "ft:gpt-5.1:org::Ab12"])
def test_a_later_model_is_no_version_of_an_earlier_one(name: str) -> None:
    catalogue(None).demand(name, "dpo")


@pytest.mark.parametrize("name", ["gpt-4.1-0125", "gpt-4.1-1106.ft-0123456789abcdef"])
def test_a_version_without_a_year_is_known_too(name: str) -> None:
    assert catalogue(None).find(name) is catalogue(None).models["gpt-4.1"]


def test_a_publisher_before_a_name_and_its_case_do_not_matter(tmp_path: Path) -> None:
    shipped = catalogue(None)
    assert shipped.find("Alibaba/qwen3.6-35b-a3b") is shipped.models["Qwen3.6-35B-A3B"]
    own = table(tmp_path, TABLE.replace("gpt-9", "Acme/gpt-9"))
    assert own.find("gpt-9") is own.find("acme/GPT-9.ft-0123") is own.models["Acme/gpt-9"]


def test_a_method_that_the_table_does_not_give_a_model_is_refused_with_those_that_have_it() -> None:
    with pytest.raises(RequestError) as error:
        catalogue(None).demand("o4-mini-2025-04-16", "dpo")
    assert str(error.value).startswith(
        "model.source: got o4-mini-2025-04-16, which the service does not tune with dpo; allowed: gpt-4.1, "
    )
    assert "gpt-4o-mini" not in str(error.value)
    assert "backend.models=FILE" in str(error.value)


def test_the_shipped_table_says_when_and_where_it_was_read_and_has_a_price_for_each_way_to_train() -> None:
    shipped = catalogue(None)
    assert shipped.date >= "2025-12"
    assert shipped.source.startswith("https://")
    for name, model in shipped.models.items():
        prices = model.training_per_million_tokens
        assert set(model.methods) <= {"sft", "dpo", "rft"} != set(), name
        assert not prices or prices["Developer"] < prices["GlobalStandard"] < prices["Standard"], name


def test_a_users_own_table_is_taken_instead(tmp_path: Path) -> None:
    own = table(tmp_path, TABLE)
    assert (own.date, own.source) == ("2026-01", "our contract")
    assert own.find("gpt-4.1-mini-2025-04-14") == Model(["sft"], {"Standard": 4.0})
    assert own.find("gpt-9") == Model(["dpo"], {}, 2.5, 1000)
    assert own.find("gpt-4o") is None
    own.demand("gpt-9", "dpo")
    with pytest.raises(RequestError, match="does not tune with dpo; allowed: gpt-9;"):
        own.demand("gpt-4.1-mini", "dpo")


def test_a_copy_of_the_shipped_table_is_such_a_table(tmp_path: Path) -> None:
    assert table(tmp_path, SHIPPED.read_bytes()) == catalogue(None)


BROKEN: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "got `null`"),
    "a list": ("- gpt-4.1", "got `array`"),
    "no YAML": ("date: [", "while parsing"),
    "a tab": ("date: x\nsource: y\nmodels:\n\tm: {}\n", "while scanning"),
    "no text": (b"\xff\xfe\x00\xd8", "unacceptable character"),
    "no models": ("date: 2025-12\nsource: x\n", "missing required field `models`"),
    "no methods": ("date: x\nsource: x\nmodels: {m: {}}\n", "missing required field `methods`"),
    "methods as text": ("date: x\nsource: x\nmodels: {m: {methods: dpo}}\n", "Expected `array`, got `str`"),
    "a price in words": (TABLE.replace("{Standard: 4}", "{Standard: four}"), "Expected `float`"),
    "an unknown kind of training": (TABLE.replace("Standard: 4", "Gold: 4"), "'Gold'"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_table_is_reported_in_a_sentence_with_its_place(broken: str, tmp_path: Path) -> None:
    text, reported = BROKEN[broken]
    with pytest.raises(RequestError) as error:
        table(tmp_path, text)
    message = str(error.value)
    assert message.startswith(f"backend.models: {tmp_path}/models.yaml: ")
    assert reported in message
    assert message.endswith("fix it, or set it to null.")
    assert "\n" not in message


@pytest.mark.parametrize(("name", "reported"), [("nowhere.yaml", "No such file or directory"), ("", "Is a directory")])
def test_a_table_that_cannot_be_read_is_reported_with_the_systems_reason(
    name: str, reported: str, tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match=reported):
        catalogue(str(tmp_path / name))


def test_the_date_may_have_a_day(tmp_path: Path) -> None:
    assert str(table(tmp_path, TABLE.replace("2026-01", "2026-01-31")).date) == "2026-01-31"


TODAY = date(2026, 11, 26)
OPEN_MODELS = "gpt-oss-20b, gpt-oss-120b, Qwen3.6-35B-A3B, Qwen3.8-27B, Muse-Glimmer-30B"


def test_each_subject_of_the_shipped_table_says_when_and_where_it_was_read() -> None:
    shipped = catalogue(None)
    assert set(shipped.sources) == {"support", "retirement", "format", "images", "limits"}
    for subject, source in shipped.sources.items():
        assert isinstance(source.read, date), subject
        assert source.link.startswith("https://"), subject
    assert shipped.said("limits").startswith(" (read 2026-02-17, https://learn.microsoft.com/")


def test_the_lifetime_of_a_retired_model_says_who_trains_it_until_when() -> None:
    model = catalogue(None).models["gpt-4.1-mini"]
    assert model.dates(TODAY) == (
        "for existing customers only, as the base model was retired on 2026-10-14; trained at least until 2027-04-14; "
        "deployed at least until 2027-10-14"
    )
    assert model.dates(date(2026, 10, 13)).startswith("the base model retires on 2026-10-14, after that for existing")
    assert catalogue(None).models["Qwen3.8-27B"].dates(TODAY) == ""


def test_what_replaces_a_retired_model_trains_with_the_same_method_and_does_not_retire_itself() -> None:
    shipped = catalogue(None)
    assert shipped.replacement("gpt-4.1", "dpo", graded=False) == (
        f"backend=foundry_sessions ({OPEN_MODELS}) or backend=tinker"
    )
    assert shipped.replacement("gpt-4.1", "sft", graded=False) == (
        f"jobs on Llama-3.3-70B-Instruct, Qwen3-32B, Ministral-3B, {OPEN_MODELS} or backend=foundry_sessions or "
        "backend=tinker"
    )
    named = shipped.replacement("o4-mini", "rft", graded=True)
    assert named == f"jobs on {OPEN_MODELS.partition(', ')[2]}"


@pytest.mark.parametrize("name", ["gpt-oss-120b", "Qwen3.8-27B"])
def test_an_open_model_that_no_job_tunes_with_dpo_points_to_sessions(name: str) -> None:
    with pytest.raises(RequestError, match=r"in sessions it can be: backend=foundry_sessions; if that has changed"):
        catalogue(None).demand(name, "dpo")


def test_a_tuned_model_is_deployed_only_in_the_ways_that_the_table_has() -> None:
    shipped = catalogue(None)
    shipped.demand_sku("gpt-4.1", "DeveloperTier")
    shipped.demand_sku("gpt-9", "Standard")
    with pytest.raises(RequestError, match=r"^backend\.deployment\.sku: got Standard, .* Ministral-3B; allowed: Glob"):
        shipped.demand_sku("Ministral-3B", "Standard")
    with pytest.raises(RequestError, match=r"^backend\.deploy: a tuned Qwen3\.8-27B is served by Managed Compute or"):
        shipped.demand_sku("Qwen3.8-27B", "GlobalStandard")


def test_a_tuned_model_is_deployed_under_its_base_models_publisher() -> None:
    found = {name: deployment.format_of(Foundry(), f"{name}.ft-0123456789abcdef") for name in catalogue(None).models}
    assert found["gpt-4.1"] == "OpenAI"
    assert (found["Ministral-3B"], found["Llama-3.3-70B-Instruct"], found["Qwen3-32B"], found["gpt-oss-20b"]) == (
        "Mistral AI", "Meta", "Alibaba", "Microsoft",
    )  # fmt: skip
    assert deployment.format_of(Foundry(), "gpt-9") == "OpenAI"
    assert deployment.format_of(Foundry(deployment=Deployment(format="Cohere")), "Ministral-3B") == "Cohere"
