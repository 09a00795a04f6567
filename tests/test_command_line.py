"""Mistakes over real command lines: one clear sentence, exit code 2, no traceback."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import warm

pytestmark = pytest.mark.slow

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """Run `python -m runner …` in an empty folder; returns the finished process."""

    def run(*arguments: str, module: str = "runner") -> subprocess.CompletedProcess[str]:
        environment = os.environ | {
            "PYTHONWARNINGS": "ignore",
            "RUNNER_CACHE": str(tmp_path / "cache"),
            "COLUMNS": "400",
        }
        line = [sys.executable, "-m", module, *arguments]
        return warm.run(line, cwd=tmp_path, env=environment, imports=warm.LIGHT)

    return run


REMOTE = ["backend=tinker", "model.source=tinker:some/model"]
SESSIONS = ["backend=foundry_sessions", "model.source=session:some/model"]
HOSTED = ["backend=foundry", "model.source=hosted:gpt-4.1-mini"]

WRONG_REQUESTS = [
    (["dpo.n_epoch=3"], "dpo.n_epoch: no such key; did you mean dpo.n_epochs?"),
    (["dpo.n_epochs=three"], "dpo.n_epochs: got 'three'; allowed: an integer ≥ 1 or 'auto'."),
    (["dpo.n_epochs=0"], "dpo.n_epochs: got 0; allowed: an integer ≥ 1 or 'auto'."),
    (["dpo.n_epochs=1.5"], "dpo.n_epochs: got 1.5; allowed: an integer ≥ 1 or 'auto'."),
    (["dpo.batch_size=-1"], "dpo.batch_size: got -1; allowed: an integer ≥ 1 or 'auto'."),
    (["dpo.beta=0"], "dpo.beta: got 0; allowed: a number > 0 or 'auto'."),
    (["dpo.beta=null"], "dpo.beta: got None; allowed: a number > 0 or 'auto'."),
    (["dpo.rpo_alpha=-1"], "dpo.rpo_alpha: got -1; allowed: a number ≥ 0 or 'auto'."),
    (
        ["dpo.learning_rate_multiplier=fast"],
        "dpo.learning_rate_multiplier: got 'fast'; allowed: a number > 0 or 'auto'.",
    ),
    (["method=dop"], "method: got 'dop'; did you mean dpo? allowed: dpo, kto, orpo, reward, rft, sft, simpo."),
    (["backend=azure"], "backend: got 'azure'; allowed: foundry, local."),
    (["dataset=mine"], "dataset: got 'mine'; allowed: files, house_style, house_style_sft; other data"),
    (["model=gpt"], "model: got 'gpt'; allowed: hosted, smollm2."),
    (["mode=try"], "mode: got 'try'; allowed: plan, run."),
    (["method=sft", "dpo.n_epochs=1"], "dpo.n_epochs: belongs to method=dpo, which this request does not choose"),
    (["sft.n_epochs=1"], "sft.n_epochs: belongs to method=sft, which this request does not choose"),
    (["backend=foundry", "backend.lora.rank=8"], "backend.lora.rank: belongs to backend=local"),
    (["backend.lora.rank=0"], "backend.lora.rank: got 0; allowed: an integer ≥ 1."),
    (["backend.tuning=qlora"], "backend.tuning: got 'qlora'; allowed: 'full' or 'lora'."),
    (["backend.schedule=step"], "backend.schedule: got 'step'; allowed: 'constant' or 'cosine' or 'linear'."),
    (["backend.warmup_ratio=1"], "backend.warmup_ratio: got 1; allowed: a number ≥ 0 and < 1."),
    (["seed=-1"], "seed: got -1; allowed: an integer ≥ 0."),
    (["again=maybe"], "again: got 'maybe'; allowed: true or false."),
    (["tracking.enabled=1"], "tracking.enabled: got 1; allowed: true or false."),
    (["dataset.on_bad_row=ignore"], "dataset.on_bad_row: got 'ignore'; allowed: 'skip' or 'stop'."),
    (["dataset.validation_fraction=1.5"], "dataset.validation_fraction: got 1.5; allowed: a number ≥ 0 and < 1."),
    (["dataset.style=["], "command line:"),
    (["dataset.style='(['"], "dataset.style: '([' is not a regular expression"),
    (["dataset=files", "dataset.train=nowhere.jsonl"], "nowhere.jsonl"),
    (["dataset.train=mine.jsonl"], "dataset.validation: is still the embedded data's"),
    (
        ["dataset.validation_fraction=0.1"],
        "dataset.validation_fraction: dataset.validation gives held-out rows already",
    ),
    (["backend.tuning=full", "backend.dtype=bfloat16"], "backend.dtype: got bfloat16 with backend.tuning=full"),
    (["backend.tuning=full", "backend.quantization=nf4"], "backend.quantization: got nf4 with backend.tuning=full"),
    (["backend.runtime.shard=true", "backend.quantization=nf4"], "got nf4 with backend.runtime.shard=true"),
    (["evaluation.keep=best", "dataset.validation=null"], "evaluation.keep: got best, but there are no held-out rows"),
    (["name=../../x"], "name: got '../../x'; allowed: up to 80 letters"),
    (["~method"], "method: missing; every request needs one"),
    (["experiments=lr_sweep"], "write +experiments=NAME"),
    (["-m", "hydra/launcher=nope", "seed=1"], "hydra/launcher: got 'nope'; installed are: basic, "),
    (["-m", "dpo.beta=interval(0.1, 1)"], "interval() is a range to search, and a grid takes values"),
    (["-m", "hydra/sweeper=optuna", "seed=1"], "hydra/sweeper=optuna: nothing is left to search"),
    (
        ["-m", "hydra/sweeper=optuna", "hydra.sweeper.n_trials=two", "dpo.beta=interval(0.1, 1)"],
        "hydra.sweeper.n_trials: got 'two'; allowed: an integer.",
    ),
    (
        ["-m", "hydra/sweeper=optuna", "hydra.sweeper.metric=reward_accuracy", "dpo.beta=interval(0.1, 1)"],
        "hydra.sweeper.metric: got reward_accuracy; allowed: eval/loss, eval/reward_accuracy, eval/reward_margin, ",
    ),
    (
        ["-m", "hydra.sweeper.metric=eval/los", "dpo.beta=0.1,0.2", "dataset.validation=null"],
        "(no rows are held out: set dataset.validation or dataset.validation_fraction)",
    ),
    (["backend.runtime.device=gpu"], "backend.runtime.device: got 'gpu'; allowed:"),
    (["dataset.train=???"], "dataset.train: missing; give it text or a list of text"),
    (
        ["model.source=smollm2"],
        "model.source: got 'smollm2'; allowed: one of hf:…, hosted:…, models:…, path:",
    ),
    (["model.source=path:/nowhere"], "model.source: /nowhere is no folder with a config.json"),
    (["model.source=pypi:llm"], "model.source: got 'pypi:llm'; allowed: pypi:NAME@VERSION@sha256:"),
    (["model.source=run:first"], "run first: not found; runs/ is empty."),
    (["model.source=hf:nobody"], "model.source: got 'hf:nobody'; allowed: hf:ORG/NAME"),
    (["dpo.loss_type=simpoo"], "dpo.loss_type: got 'simpoo'; allowed: 'apo_zero' or 'hinge' or 'ipo' or 'orpo' or"),
    (["dpo.gamma=1"], "dpo.gamma: got 1.0, but dpo.loss_type=sigmoid does not use it"),
    (
        [*HOSTED, "method=kto"],
        "method: got kto, which hosted jobs do not offer; allowed: dpo, rft, sft; use one of them",
    ),
    (
        ["method=kto", "kto.batch_size=1"],
        "kto.batch_size: got 1, but the divergence is measured by the answers of other",
    ),
    (
        ["method=reward", "evaluation.graders=[length]"],
        "method=reward trains a model that gives no answers to grade; leave it out.",
    ),
    (["method=reward", "backend.quantization=nf4"], "backend.quantization: got nf4; method=reward is saved merged"),
    (["method=reward", "backend.runtime.shard=true"], "backend.runtime.shard: got true; method=reward is not sharded"),
    ([*HOSTED, "method=simpo"], "dpo.loss_type: got simpo; hosted jobs have no such option (they behave as sigmoid)"),
    ([*HOSTED, "dpo.rpo_alpha=0.5"], "dpo.rpo_alpha: got 0.5; hosted jobs have no such option (they behave as 0.0)"),
    ([*HOSTED, "dpo.n_epochs=51"], "dpo.n_epochs: got 51; the service takes up to 50, or auto."),
    ([*HOSTED, "dpo.batch_size=300"], "dpo.batch_size: got 300; the service takes up to 256, or auto."),
    ([*HOSTED, "seed=3000000000"], "seed: got 3000000000; the service takes up to 2147483647."),
    ([*HOSTED, "dataset.max_rows=9"], "dataset.train: has 9 rows; the service takes 10 or more; add some."),
    ([*HOSTED, "evaluation.patience=2"], "evaluation.patience: got 2; a hosted job goes to its end"),
    ([*HOSTED, "evaluation.keep=best"], "evaluation.keep: got best; a hosted job ends with its last weights"),
    ([*HOSTED, "backend.suffix='a b'"], "backend.suffix: got 'a b'; allowed: text like [A-Za-z0-9_-]{1,18} or null."),
    ([*HOSTED, "backend.deploy=yes"], "backend.deploy: got 'yes'; allowed: 'delete_after_eval' or 'keep' or 'none'."),
    ([*HOSTED, "backend.models=nowhere.yaml"], "backend.models: nowhere.yaml: No such file or directory"),
    (["backend=foundry"], "model.source: the hosted model's name is missing; set MODEL_NAME"),
    (["backend=foundry", "model=smollm2"], "the service trains its own models only"),
    (["backend=foundry", "model.source=hosted:o4-mini"], "got o4-mini, which the service does not tune with dpo"),
    (["model.source=hosted:gpt-4.1"], "a hosted model cannot be trained here; use backend=foundry"),
    (["dpo.beta=0.1,0.2"], "dpo.beta: several values make a sweep; add -m"),
    (["+dpo.beta=0.2"], "dpo.beta: this key exists already; leave out the +"),
    (["+experiments=nope"], "experiments: got 'nope'"),
    (["dpo.beta=${oc.env:NO_SUCH_VARIABLE}"], "needs the environment variable NO_SUCH_VARIABLE"),
    (["dpo.beta=${nope}"], "refers to ${nope}, which does not exist"),
    (["dpo.n_epochs"], "command line:"),
]


STOOD_FOR = (
    # A value that a key's type does not allow, which tests/request/test_check.py tries without a command:
    # dpo.n_epochs=three and dpo.beta=0 stand for them.
    "dpo.n_epochs=0", "dpo.n_epochs=1.5", "dpo.batch_size=-1", "dpo.beta=null", "dpo.rpo_alpha=-1",
    "dpo.learning_rate_multiplier=fast", "backend.lora.rank=0", "backend.tuning=qlora", "backend.schedule=step",
    "backend.warmup_ratio=1", "seed=-1", "tracking.enabled=1", "dataset.on_bad_row=ignore",
    "dataset.validation_fraction=1.5", "dpo.loss_type=simpoo", "backend.suffix='a b'", "backend.deploy=yes",
    # An option that does not exist: method=dop and dataset=mine.
    "backend=azure", "model=gpt", "mode=try",
    # A key of something else that was not chosen: method=sft with dpo.n_epochs=1.
    "sft.n_epochs=1", "backend.lora.rank=8",
    # Keys that exclude each other: backend.tuning=full with backend.dtype=bfloat16.
    "backend.quantization=nf4", "dpo.gamma=1", "evaluation.keep=best",
    # A limit of the service's, or what it has not: dpo.n_epochs=51 and method=simpo.
    "dpo.rpo_alpha=0.5", "backend.runtime.shard=true", "dpo.batch_size=300", "seed=3000000000", "evaluation.patience=2",
    # A model's source: pypi:llm and hf:nobody.
    "model.source=smollm2", "model.source=path:/nowhere",
)  # fmt: skip
"""By the last argument: further cases of a kind of which one case stays in `make test`."""


@pytest.mark.parametrize(
    ("arguments", "reported"),
    [
        pytest.param(*case, marks=pytest.mark.exhaustive if case[0][-1] in STOOD_FOR else (), id=" ".join(case[0])[:40])
        for case in WRONG_REQUESTS
    ],
)
def test_a_wrong_request_is_answered_by_one_sentence_before_anything_is_written(
    arguments: list[str], reported: str, command: Command, tmp_path: Path
) -> None:
    process = (
        command("mode=plan", *arguments)
        if not any(each.startswith("mode=") for each in arguments)
        else command(*arguments)
    )
    assert reported in process.stderr
    assert process.returncode == 2
    assert "Traceback" not in process.stderr
    assert "Error executing job" not in process.stderr
    assert len(process.stderr.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


GOOD = {
    "input": {"messages": [{"role": "user", "content": "Why?"}]},
    "preferred_output": [{"role": "assistant", "content": "Because."}],
    "non_preferred_output": [{"role": "assistant", "content": "No idea."}],
}


BAD_LINES = {"{": "pairs.jsonl:2: ", json.dumps({"input": GOOD["input"]}): "`preferred_output`"}
"""No JSON, and no pair; tests/data/test_bad_rows.py has whatever else a row can lack."""


@pytest.mark.parametrize(("line", "reported"), BAD_LINES.items(), ids=["no JSON", "no pair"])
def test_a_bad_row_is_named_by_file_and_line(line: str, reported: str, command: Command, tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text(f"{json.dumps(GOOD)}\n{line}\n", "utf-8")
    process = command("mode=plan", "dataset.train=pairs.jsonl", "dataset.validation=null")
    assert process.returncode == 2
    assert "pairs.jsonl:2: " in process.stderr
    assert reported in process.stderr
    assert "dataset.on_bad_row=skip" in process.stderr
    assert "Traceback" not in process.stderr
    assert len(process.stderr.strip().splitlines()) == 1


def test_bad_rows_are_skipped_on_request(command: Command, tmp_path: Path) -> None:
    (tmp_path / "pairs.jsonl").write_text(f"{json.dumps(GOOD)}\n{{\n", "utf-8")
    process = command("mode=plan", "dataset.train=pairs.jsonl", "dataset.validation=null", "dataset.on_bad_row=skip")
    assert process.returncode == 0
    assert "pairs.jsonl:2: " in process.stdout


def test_a_plan_writes_no_file(command: Command, tmp_path: Path) -> None:
    process = command("mode=plan")
    assert process.returncode == 0, process.stderr
    assert "dpo.n_epochs" in process.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--cfg", "job"], ["mode=plan"], *([*each, "mode=plan"] for each in (HOSTED, REMOTE, SESSIONS))],
)
def test_planning_never_imports_what_only_running_needs(arguments: list[str], tmp_path: Path) -> None:
    script = (
        "import sys; sys.argv = ['runner', *sys.argv[1:]]\n"
        "import atexit\n"
        "heavy = {'torch', 'transformers', 'peft', 'mlflow', 'azure', 'openai', 'pandas', 'numpy', 'pyarrow'}\n"
        "heavy |= {'tinker'}\n"
        "atexit.register(lambda: print('HEAVY', sorted(heavy & set(sys.modules))))\n"
        "from runner.__main__ import main; main()\n"
    )
    line = [sys.executable, "-c", script, *arguments]
    process = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240)
    assert process.returncode == 0, process.stderr
    found = process.stdout.rpartition("HEAVY ")[2].strip()
    # The check of the data counts with numpy; what looks at no data does not wait for it.
    assert found == ("['numpy']" if "mode=plan" in arguments else "[]")


def test_options_of_a_users_own_folder_are_found(command: Command, tmp_path: Path, pairs_file: Path) -> None:
    (tmp_path / "conf" / "dataset").mkdir(parents=True)
    (tmp_path / "conf" / "dataset" / "mine.yaml").write_text(f"train: {pairs_file}\n")
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "own.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /dataset: mine\nname: own\n"
    )
    process = command("mode=plan", "+experiments=own", "dataset.validation_fraction=0.25")
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith("own-")
    assert "validation" in process.stdout


@pytest.mark.parametrize(
    ("arguments", "reported"),
    [
        ([], "AZURE_AI_PROJECT_ENDPOINT: not set; put it into the environment or .env, or set backend.azure.endpoint"),
        (["backend.azure.endpoint=https://example.org"], "backend.azure.endpoint: got https://example.org; allowed:"),
        (
            ["backend.azure.endpoint=https://mine.services.ai.azure.com/api/projects/p", "backend.deploy=keep"],
            "AZURE_SUBSCRIPTION_ID: not set",
        ),
    ],
    ids=["no endpoint", "no project", "no subscription"],
)
def test_a_variable_that_is_missing_is_named_before_anything_is_made(
    arguments: list[str], reported: str, command: Command, tmp_path: Path
) -> None:
    process = command("backend=foundry", "model.source=hosted:gpt-4.1-mini", *arguments)
    assert process.returncode == 2
    assert reported in process.stderr
    assert len(process.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_chat_without_a_run_says_how_to_make_one(command: Command) -> None:
    process = command(module="runner.chat")
    assert process.returncode == 2
    assert "no run has a model yet" in process.stderr


@pytest.mark.parametrize("key", ["tools", "tool_calls"])
def test_tools_are_refused_where_the_models_template_cannot_say_them(
    key: str, command: Command, tmp_path: Path, tiny_model: Path
) -> None:
    calls = [{"id": "1", "type": "function", "function": {"name": "now", "arguments": "{}"}}]
    answer = {"role": "assistant", "content": "Noon.", **({"tool_calls": calls} if key == "tool_calls" else {})}
    row = GOOD | {"preferred_output": [answer]}
    if key == "tools":
        row["input"] = GOOD["input"] | {"tools": [{"type": "function", "function": {"name": "now"}}]}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(GOOD) + "\n", "utf-8")
    line = ["mode=plan", "dataset.train=pairs.jsonl", "dataset.validation=null"]
    local = command(*line, f"model.source=path:{tiny_model}")
    assert local.returncode == 2
    lacks = "the tools that rows declare" if key == "tools" else "the assistant's calls"
    assert "pairs.jsonl:1: " in local.stderr
    assert f"/chat_template.jinja: the model's chat template leaves out {lacks}, so that" in local.stderr
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for _ in range(10)), "utf-8")
    assert command(*line, "backend=foundry", "model.source=hosted:gpt-4.1-mini").returncode == 0


def test_the_word_tool_in_a_text_is_no_tool(command: Command, tmp_path: Path) -> None:
    row = GOOD | {"preferred_output": [{"role": "assistant", "content": 'A "tool" is "tools".'}]}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    process = command("mode=plan", "dataset.train=pairs.jsonl", "dataset.validation=null")
    assert process.returncode == 0, process.stderr
