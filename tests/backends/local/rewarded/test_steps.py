"""A whole run by reward on this machine: what is refused, kill -9 anywhere, and the commands that follow a run."""

import json
import sys
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from subprocess import PIPE
from threading import Thread
from typing import Any, ClassVar

import pytest

from runner import api, graders
from runner.errors import DataError, RunnerError
from runner.evaluation import configured
from runner.record.journal import read
from runner.rollouts.held_out import watching
from tests import warm
from tests.execution.test_resume import adapter, measured, quietly, run_command, the_run

pytestmark = pytest.mark.slow

HELD_OUT = 4
VARIED = {"type": "length", "name": "long", "unit": "characters", "min": 30, "tolerance": 30}


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    rows = [{"question": f"How do I keep {number} loaves fresh?", "answer": str(number)} for number in range(9)]
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def arguments(model: Path, data: Path, *more: str, grader: dict[str, Any] | None = None) -> list[str]:
    path = data.with_name("grader.json")
    path.write_text(json.dumps(grader or VARIED), "utf-8")
    return [
        "method=rft", "dataset=files", f"model.source=path:{model}", f"dataset.train={data}",
        "dataset.validation_fraction=0.25", f"rft.grader={path}", "rft.max_new_tokens=6",
        "rft.batch_size=3", "rft.group_size=3", "rft.n_epochs=1", "evaluation.samples=2", "evaluation.max_new_tokens=4",
        "backend.runtime.threads=1", "backend.runtime.checkpoint_every=2", "backend.learning_rate=0.01",
        "tracking=none", *more,
    ]  # fmt: skip


REFUSED = {
    "evaluation.keep_by": (
        ["evaluation.graders=[length]", "evaluation.keep_by=short", "evaluation.keep=best"],
        "evaluation.keep_by: got short; method=rft goes by the held-out reward; leave it out.",
    ),
    "backend.ema_decay": (
        ["backend.ema_decay=0.9"],
        "backend.ema_decay: got 0.9; method=rft learns from answers of the weights that learn, not of their average; "
        "leave it out.",
    ),
    "rft.group_size": (["rft.group_size=1"], "rft.group_size: got 1; allowed: an integer ≥ 2 or 'auto'."),
    "rft.loss_type": (
        ["rft.loss_type=ppo"],
        "rft.loss_type: got 'ppo'; allowed: 'cispo' or 'dapo' or 'dr_grpo' or 'grpo' or 'gspo' or 'rloo'."
    ),
    "rft.epsilon": (
        ["rft.loss_type=cispo", "rft.epsilon=0.1"],
        "rft.epsilon: got 0.1, but rft.loss_type=cispo does not use it; leave it out, or take a loss that has it: "
        "grpo, dr_grpo, dapo, gspo, rloo.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("key", REFUSED)
def test_what_cannot_be_trained_is_refused_before_anything_runs(key: str, tiny_model: Path, problems: Path) -> None:
    more, message = REFUSED[key]
    given = [each for each in arguments(tiny_model, problems) if not each.startswith(f"{key}=")]
    with pytest.raises(RunnerError) as caught:
        api.plan(*given, *more)
    assert str(caught.value) == message


def test_a_field_that_the_rows_lack_is_reported_by_file_and_line(tiny_model: Path, problems: Path) -> None:
    texts = {"input": "{{ sample.output_text }}", "reference": "{{ item.solution }}", "operation": "eq"}
    with pytest.raises(DataError) as caught:
        api.plan(*arguments(tiny_model, problems, grader={"type": "string_check", "name": "right", **texts}))
    assert "problems.jsonl:1, " in str(caught.value)
    assert "grader right names item.solution, which 9 of 9 rows do not have" in str(caught.value)


def test_one_yaml_serves_both_backends_and_the_plan_says_what_is_not_used(tiny_model: Path, problems: Path) -> None:
    here = api.plan(*arguments(tiny_model, problems), "rft.reasoning_effort=low", "rft.compute_multiplier=2")
    assert here.left_out == ["rft.reasoning_effort: not used by backend=local; only a hosted service takes them"]
    assert "reasoning_effort" not in here.run.plan.hyperparameters
    without = api.plan(*arguments(tiny_model, problems), "rft.compute_multiplier=2")
    assert here.run.plan.id == without.run.plan.id


def test_a_hosted_plan_leaves_out_the_keys_of_our_own_loop_and_is_the_same_without_them(tmp_path: Path) -> None:
    rows = [{"question": f"What is {number} + 1?", "answer": str(number + 1)} for number in range(60)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    line = [
        "method=rft", "backend=foundry", "model.source=hosted:o4-mini", "dataset=files", "mode=plan",
        f"dataset.train={tmp_path}/sums.jsonl", "dataset.validation_fraction=0.3", "rft.grader=string_check",
    ]  # fmt: skip
    plain, more = api.plan(*line), api.plan(*line, "rft.group_size=4", "rft.loss_type=grpo")
    assert more.left_out == [
        "rft.loss_type, rft.group_size: not used by backend=foundry; the service has its own values"
    ]
    assert (more.run.plan.id, plain.left_out) == (plain.run.plan.id, [])
    assert not {"loss_type", "group_size", "beta"} & set(plain.run.plan.hyperparameters)


def test_the_plan_says_how_many_answers_are_sampled(tiny_model: Path, problems: Path, tmp_path: Path) -> None:
    done = run_command(
        tmp_path, "-m", "runner", *arguments(tiny_model, problems, "mode=plan", "rft.updates_per_rollout=2")
    )
    reported = (
        "answers to sample and grade: 18 in 4 steps of 3 prompts × 3, 12 to held-out rows; each of 6 tokens at most"
    )
    assert reported in done.stdout


def test_the_base_model_is_rehearsed_by_the_grader_of_the_reward(
    tiny_model: Path, problems: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNNER_CACHE", str(tmp_path / "cache"))
    constant = {"type": "python", "name": "always", "source": "def grade(sample, item):\n    return 1.0"}
    line = arguments(tiny_model, problems, "mode=plan", "rehearse=true", grader=constant)
    done = run_command(tmp_path, "-m", "runner", *line)
    assert done.returncode == 0, done.stderr
    assert "prompts whose answers differ  characters  cut off" in done.stdout
    assert (
        "warning: grader always: all samples of each prompt score the same: there is nothing to learn from"
        in done.stdout
    )
    assert "warning: grader always: every answer passes (100 %)" in done.stdout


@pytest.mark.parametrize("name", ["rft_sentiment", "rft_short_answers", "rft_json"])
def test_an_experiment_has_its_grader_and_held_out_rows_that_are_not_trained_on(name: str, tiny_model: Path) -> None:
    proposal = api.plan(f"+experiments={name}", f"model.source=path:{tiny_model}")
    plan, reward = proposal.run.plan, proposal.rehearsed[0]
    assert plan.validation
    assert (plan.validation.rows, reward.warnings) == (40, ())
    train, held_out = ({row.question for row in proposal.run.rows(split)} for split in ("train", "validation"))
    assert not train & held_out
    graded = configured.of_request(proposal.run.request)
    assert watching(graded, graders.make(plan.hyperparameters["grader"], "here")) == graded[1:]


class Grading(BaseHTTPRequestHandler):
    """A grader that is paid by the answer: it counts them."""

    asked: ClassVar[Counter[str]] = Counter()

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked[body["item"]["messages"][0]["content"] + body["sample"]["output_text"]] += 1
        score = len(body["sample"]["output_text"]) % 7 / 7
        content = json.dumps({"score": score}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@pytest.fixture
def paid() -> Iterator[str]:
    Grading.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Grading)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


FORK_AND_KILL = """
import gc, json, os, signal, sys
from pathlib import Path
from runner import api, graders
from runner.errors import DataError, RunnerError
from runner.evaluation import configured
from runner.execution import execute
from runner.record.events import Progress

run = api.plan(*sys.argv[1:]).run

def carry_out(folder, records):
    os.chdir(folder)
    left = records
    def listen(record):
        nonlocal left
        left -= not isinstance(record.event, Progress)  # which no journal keeps
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    with execute.alone(run.folder):
        execute.execute(run, listen)

# Not a whole run: a model that a process has had already lies elsewhere in memory, and sums may be rounded otherwise.
from runner.backends.local.rewarded import steps
execute.versions()
gc.freeze()
print("ready", flush=True)
for line in sys.stdin:
    pid = os.fork()
    if pid == 0:
        carry_out(*json.loads(line))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""


@pytest.mark.parametrize("every", [pytest.param(1, marks=pytest.mark.exhaustive), 5])
def test_kill_9_after_a_record_changes_no_bit_and_pays_for_no_answer_twice(
    every: int, tiny_model: Path, problems: Path, tmp_path: Path, paid: str
) -> None:
    grader = {"type": "endpoint", "name": "paid", "url": paid}
    line = arguments(tiny_model, problems, "evaluation.judge.concurrency=1", "evaluation.samples=0", grader=grader)
    with warm.Popen([sys.executable, "-c", FORK_AND_KILL, *line], cwd=tmp_path, env=quietly(), stdin=PIPE, stdout=PIPE,
                    text=True) as forking:  # fmt: skip
        assert forking.stdin
        assert forking.stdout
        assert forking.stdout.readline() == "ready\n"

        def carry_out(name: str, records: int = 0) -> int:
            (tmp_path / name).mkdir(exist_ok=True)
            forking.stdin.write(json.dumps([str(tmp_path / name), records]) + "\n")
            forking.stdin.flush()
            return int(forking.stdout.readline())

        assert carry_out("whole") == 0
        whole, bill = the_run(tmp_path / "whole"), Counter(Grading.asked)
        weights, metrics = adapter(tmp_path / "whole"), measured(whole)
        for records in range(every, len(read(whole / "journal.jsonl")), every):
            Grading.asked.clear()
            name = f"killed after {records}"
            assert carry_out(name, records) == -9
            assert carry_out(name) == 0
            assert adapter(tmp_path / name) == weights, name
            assert measured(the_run(tmp_path / name)) == metrics, name
            assert (the_run(tmp_path / name) / "evaluation.jsonl").read_bytes() == (
                whole / "evaluation.jsonl"
            ).read_bytes()
            assert Grading.asked == bill, name
        forking.kill()


def test_the_other_commands_treat_it_like_any_run(tiny_model: Path, problems: Path, tmp_path: Path) -> None:
    line = arguments(tiny_model, problems, "evaluation.graders=[length]", "evaluation.keep=best", "name=one")
    done = run_command(tmp_path, "-m", "runner", *line)
    assert done.returncode == 0, done.stderr
    run = the_run(tmp_path)
    rows = [json.loads(each) for each in (run / "evaluation.jsonl").read_text("utf-8").splitlines()]
    assert [set(row) for row in rows] == [{"row", "reward"}] * HELD_OUT
    values = {name: value for _, each in measured(run) for name, value in each.items()}
    assert {"train/reward", "eval/reward", "eval/short_sampled", "eval/short", "train/entropy", "train/truncated",
            "train/answer_tokens", "train/without_spread"} <= set(values)  # fmt: skip
    evaluated = run_command(tmp_path, "-m", "runner.evaluate", run.name, "evaluation.samples=2", "tracking=none")
    assert evaluated.returncode == 0, evaluated.stderr
    chat = run_command(tmp_path, "-m", "runner.chat", run.name, typed="Why?\n\n")
    assert (chat.returncode, "tuned" in chat.stdout) == (0, True)
    sweep = run_command(tmp_path, "-m", "runner", "-m", *[each for each in line if not each.startswith("name=")],
                        "rft.loss_type=grpo,rloo")  # fmt: skip
    assert sweep.returncode == 0, sweep.stderr
    assert "reward" in sweep.stdout
    both = [each.parent.name for each in tmp_path.glob("runs/rft-*/journal.jsonl")]
    assert len(both) == 2
    compared = run_command(tmp_path, "-m", "runner.compare", *both)
    assert compared.returncode == 0, compared.stderr
    assert "rft.loss_type" in compared.stdout
