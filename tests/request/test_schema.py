"""The JSON schema of requests says what the check says: of each key, of every file that comes with the runner."""

import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import pytest
import yaml
from jsonschema import Draft202012Validator
from omegaconf import OmegaConf

from runner import backends, graders, methods
from runner.errors import RequestError
from runner.evaluation import configured
from runner.request import check, keys, schema
from tests import warm
from tests.execution.test_resume import quietly
from tests.request.test_check import composed
from tests.request.test_check import hydra_is_fresh as hydra_is_fresh

ROOT = Path(__file__).parents[2]
EXTEND = ROOT / "examples" / "extend"
OWN = ("dataset", "model", "evaluation", "tracking", "grader")
FILES = [path for path in [*ROOT.glob("conf/**/*.yaml"), *ROOT.glob("experiments/*.yaml")] if "hydra" not in path.parts]


@cache
def validator(name: str) -> Draft202012Validator:
    Draft202012Validator.check_schema(schema.of(name))
    return Draft202012Validator(schema.of(name))


def wrong(content: object, name: str = "request") -> list[str]:
    return [f"{'.'.join(map(str, each.path))}: {each.message}" for each in validator(name).iter_errors(content)]


def loaded(text: str) -> Any:
    """Return YAML as the runner reads it: `1e-4` is a number."""
    return OmegaConf.to_container(OmegaConf.create(text), resolve=False)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_file_of_the_runner_is_right_by_the_schema_of_its_folder(path: Path) -> None:
    name = path.parent.name if path.parent.name in OWN else "request"
    assert wrong(loaded(path.read_text("utf-8")), name) == []


@pytest.mark.parametrize("line", ["", "method=simpo", "backend=foundry", "backend=tinker", "+experiments=rft_json"])
def test_a_whole_request_as_hydra_composes_it_is_right(line: str) -> None:
    assert wrong(msgspec.to_builtins(composed(*line.split()))) == []


WRONG = """
dataset: {trian: x.jsonl}
dataset: {train: 3}
dataset: {max_rows: 0}
dataset: {validation_fraction: 1}
dataset: {on_bad_row: fix}
dataset: {train: x.jsonl, split_seed: -1}
dataset: files
model: {source: [a]}
model: {name: gpt2}
sead: 3
seed: -1
seed: 1.5
seed: two
mode: train
again: 1
again: "yes"
name: [a]
max_price: -1
harness: gsm8k
runs_folder: null
evaluation: {samples: some}
evaluation: {keep: first}
evaluation: {top_p: 0}
evaluation: {temperature: -0.1}
evaluation: {samples_per_prompt: 0}
evaluation: {judge: {concurrency: 0}}
evaluation: {judge: {key: abc}}
evaluation: {graders: [3]}
evaluation: {graders: [{type: lenght}]}
evaluation: {graders: [{type: length, maximum: 3}]}
evaluation: {graders: [{type: string_check, input: a, reference: b, operation: equals}]}
tracking: {enabled: 2}
tracking: {url: http://127.0.0.1}
dpo: {beta: 0}
dpo: {n_epochs: 0}
dpo: {loss_type: dpo}
dpo: {label_smoothing: 0.5}
dpo: {learning_rate: 1e-4}
sft: {n_epochs: 1}
backend: {lora: 3}
backend: {lora: {rank: 0}}
backend: {dtype: float16}
backend: {training_type: Standard, tuning: full}
backend: {runtime: {device: tpu}}
""".strip().splitlines()
"""Each wrong by itself for the default request, which is DPO on this machine."""


@pytest.mark.parametrize("text", WRONG)
def test_what_the_check_refuses_is_wrong_by_the_schema(text: str) -> None:
    with pytest.raises(RequestError):
        configured.of_request(check.request(merged(default(), loaded(text))))
    # An editor knows the method by the file that is open, where it says so.
    assert wrong({"method": "dpo", **loaded(text)}) != []


@cache
def default() -> dict[str, Any]:
    return composed()


def test_the_list_of_wrong_requests_is_long_enough() -> None:
    assert len(set(WRONG)) >= 30


def merged(base: Any, change: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(change, dict):
        return change
    return base | {key: merged(base.get(key), value) for key, value in change.items()}


POOL: list[object] = [
    None, True, False, 0, 1, -1, 7, 64, 0.25, 0.5, 1.5, -0.5, "", "auto", "none", "x", "gpt", [], ["a"], [1],
    {}, {"a": "b"}, {"a": 1},
]  # fmt: skip
"""Without 1.0, which is an integer to a JSON schema."""
FREE = {"graders", "grader"}
"""Checked by the grader's own type, when the plan is made: the schema knows more of them than the check."""


def every_key() -> Iterator[tuple[str, type, tuple[str, ...]]]:
    """Yield each dataclass of keys with the path of its section in a request, and what else the request has to say."""
    yield "", keys.RootKeys, ()
    yield from ((f"{name}.", owner, ()) for name, owner in keys.SECTIONS.items())
    yield from ((f"{name}.", methods.load(name).hyperparameters, ("method", name)) for name in methods.names())
    yield from (("backend.", backends.keys(name), ("backend.name", name)) for name in backends.names())


def leaves(owner: type, prefix: str) -> Iterator[tuple[str, Any, object]]:
    hints = get_type_hints(owner, include_extras=True)
    for field in fields(owner):
        hint = hints[field.name]
        if is_dataclass(hint) and isinstance(hint, type):
            yield from leaves(hint, f"{prefix}{field.name}.")
        elif field.name not in FREE:
            yield f"{prefix}{field.name}", hint, field.default


@pytest.mark.parametrize(("prefix", "owner", "with_"), list(every_key()), ids=lambda value: str(value))
def test_of_each_key_the_schema_takes_what_the_check_takes(
    prefix: str, owner: type, with_: tuple[str, ...]
) -> None:  # fmt: skip
    count = 0
    for key, hint, default in leaves(owner, prefix):
        literals = [value for value in getattr(hint, "__args__", ()) if isinstance(value, str)]
        for value in [*POOL, *literals, *([default] if isinstance(default, str | int | float) else [])]:
            try:
                msgspec.convert(value, hint)
                right = value != "???"
            except msgspec.ValidationError:
                right = False
            # A value that must be given may be left open in a part of a request.
            found = wrong(nested(key, value, with_)) == [] and value != "???"
            assert found == right, f"{key}={value!r}: the check says {right}, the schema {found}"
            count += 1
    assert count > len(POOL) / 2


def nested(key: str, value: object, with_: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path, each in [with_, (key, value)] if with_ else [(key, value)]:
        holder = found
        *sections, last = str(path).split(".")
        for section in sections:
            holder = holder.setdefault(section, {})
        holder[last] = each
    return found


def test_every_key_has_its_meaning_and_its_default() -> None:
    properties = schema.of("request")["$defs"]["dpo"]["properties"]  # type: ignore[index,call-overload]
    assert all(each["description"] for each in properties.values())
    assert properties["beta"]["default"] == methods.load("dpo").hyperparameters().beta


@pytest.mark.parametrize("kind", graders.names())
def test_a_grader_lacks_nothing_that_its_type_needs(kind: str) -> None:
    needed = [each.encode_name for each in msgspec.structs.fields(graders.kind(kind)) if each.required]
    assert (wrong({"type": kind}, "grader") == []) == (needed == [])


@pytest.mark.slow
def test_extensions_are_in_the_schema_once_they_are_installed(tmp_path: Path) -> None:
    for folder in ("runner", "conf"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(EXTEND, tmp_path, dirs_exist_ok=True)
    for which in ("request", "grader"):
        line = [sys.executable, "-m", "runner.schema", which]
        here = quietly() | {"PYTHONPATH": str(tmp_path)}
        found = Draft202012Validator(json.loads(warm.run(line, cwd=tmp_path, env=here, check=True).stdout))
        paths = [path for path in EXTEND.glob("conf/*/*.yaml") if (path.parent.name == "grader") == (which == "grader")]
        assert paths
        for path in paths:
            content = yaml.safe_load(path.read_text("utf-8"))
            assert list(found.iter_errors(content)) == []
            assert wrong(content, which) != [], "it is unknown without the extension"


def test_all_schemas_are_written_with_the_settings_of_an_editor(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "runner.schema", "--to", ".vscode"]
    said = warm.run(line, cwd=tmp_path, env=quietly(), check=True, imports=warm.LIGHT).stdout
    settings = json.loads(said[said.index("{") :])["yaml.schemas"]
    assert sorted(settings) == sorted(f".vscode/{name}.schema.json" for name in schema.names())
    for name in settings:
        Draft202012Validator.check_schema(json.loads((tmp_path / name).read_bytes()))
