"""Our local engine next to TRL's trainers, step for step on the same rows: seconds, memory, losses.

    python tests/benchmarks/bench_trl.py [--only equal,hh,llamafactory,sft,trial] [--steps N] [--data FOLDER]

Each side is a process of its own (side_by_side/); they take optimizer steps in turn, so that the machine's noise
strikes both alike. Rows, batches and their order are the same, the recipe too: LoRA r=16 on all linear layers,
4 rows a step, float32 on a CPU, bfloat16 on a GPU. TRL has the settings that were fastest here (`SETTINGS`); `--try`
tries them again and goes by what it finds, `--bf16` reports what TRL's default on a CPU would take.

    equal, hh, llamafactory   DPO, both with the reference pass and with its log-probabilities cached or precomputed
    sft                       supervised, the loss on answers only
    trial                     whole processes on hh: the second trial of a sweep next to a TRL script's second run

The real rows are in the folder that --data or RUNNER_TEST_DATA names; without it rows are made up with lengths like
theirs. About 25 minutes on two cores; the last line is JSON.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from omegaconf import OmegaConf

from runner import models
from runner.backends.local.machine import hardware
from runner.cache import user_folder
from runner.models.chat.tokenizer import ChatTokenizer
from runner.request import hydra_config
from tests.benchmarks.side_by_side import pipe, rows
from tests.benchmarks.side_by_side.figures import CLOSE, GIGABYTE, Line, difference, rounded, table
from tests.benchmarks.side_by_side.pipe import Child
from tests.benchmarks.side_by_side.rows import Data, Source, needed, padded
from tests.benchmarks.side_by_side.runner_side import LEARNING_RATE, overrides

HERE = "tests.benchmarks.side_by_side"
MEMORY_BAR, TRIAL_BAR = 2.0, 5.0
TRIAL_STEPS = 10
LESS_MEMORY = {"gradient_checkpointing": True}
Settings = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A kind of rows and how both sides learn from it; bars are the least ratios, of a step and of a whole pass."""

    source: Source
    method: str
    steps: int
    step_bar: float
    whole_bar: float | None = None

    @property
    def modes(self) -> Mapping[str, Settings]:
        """How the reference is had, with TRL's settings for it."""
        if self.method == "sft":
            return {"": {}}
        return {"reference": {"precompute_ref_log_probs": False}, "cached": {"precompute_ref_log_probs": True}}


CASES = {
    "equal": Case(Source("preference", 100, rows.equal_pair), "dpo", 5, 3.0),
    "hh": Case(Source("preference", 100, rows.dialogue_pair, "hh_harmless_test.dpo.jsonl"), "dpo", 5, 4.5, 4.0),
    "llamafactory": Case(Source("preference", 60, rows.essay_pair, "llamafactory_en.dpo.jsonl"), "dpo", 3, 3.0),
    "sft": Case(Source("conversation", 200, rows.sum_conversation, "gsm8k_test.sft.jsonl"), "sft", 10, 2.0),
}
SETTINGS: Mapping[str, Sequence[Settings]] = {
    "dpo": ({"bf16": False, "gradient_checkpointing": False}, {"bf16": False, **LESS_MEMORY}),
    "sft": (
        {"bf16": False, "gradient_checkpointing": False},
        {"bf16": False, "gradient_checkpointing": False, "padding_free": True, "max_length": None},
        {"bf16": False, **LESS_MEMORY},
    ),
}
"""What --try tries, the one that was fastest on two cores first. Packing is not among it: it makes other batches."""


@dataclass
class Bench:
    """What a run of the benchmark knows of the machine and the model, and what it has found so far."""

    source: str
    model: Path
    gpu: bool
    threads: int
    rate: float
    scratch: Path
    lines: list[Line] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def say(self, text: str) -> None:
        """Print the progress."""
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def variables(self, cache: str) -> dict[str, str]:
        """Return a child's environment: caches that are empty but for the model and what is known of the machine."""
        folder = self.scratch / cache
        folder.mkdir(exist_ok=True)
        for name in ("models", "machines"):
            known = user_folder() / name
            if known.exists() and not (folder / name).exists():
                (folder / name).symlink_to(known.resolve(), target_is_directory=True)
        return {"RUNNER_CACHE": str(folder), "HF_HOME": str(folder / "hf"), "TMPDIR": str(self.scratch)}

    def ours(self, method: str, path: Path, cache: str) -> Child:
        """Return our side, standing before its first step once entered."""
        asked = {"rows": str(path), "overrides": overrides(self.source, method, self.gpu)}
        return Child(f"{HERE}.runner_side", asked, self._folder("ours"), self.variables(cache))

    def trl(self, method: str, path: Path, settings: Settings) -> Child:
        """Return TRL's side."""
        return Child(f"{HERE}.trl_side", self.asked(method, path, settings), self._folder("trl"), self.variables("trl"))

    def asked(self, method: str, path: Path, settings: Settings, learning_rate: float = LEARNING_RATE) -> Settings:
        """Return what TRL's side is reported."""
        return {
            "model": str(self.model), "method": method, "rows": str(path), "threads": self.threads,
            "learning_rate": learning_rate, "settings": {**settings, "bf16": self.gpu or settings["bf16"]},
        }  # fmt: skip

    def _folder(self, name: str) -> Path:
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.scratch))


def run_case(bench: Bench, name: str, case: Case, data: Data, trying: bool) -> None:
    """Measure a case in all its modes, then TRL with the least memory on the batch that needs most of it."""
    path = data.write(bench.scratch / name / "rows.jsonl")
    settings = dict(fastest(bench, name, case, data) if trying else SETTINGS[case.method][0])
    try:
        peaks = run_modes(bench, name, case, data, settings)
    except pipe.KilledError:
        bench.say(f"{name}: TRL was killed, as its memory does not suffice; with gradient checkpointing:")
        settings |= LESS_MEMORY
        peaks = run_modes(bench, name, case, data, settings)
    heaviest = data.write(path.with_name("heaviest.jsonl"), data.heaviest, data.heaviest + 1)
    with bench.trl(case.method, heaviest, settings | LESS_MEMORY) as child:
        seconds = child.step()["seconds"]
        least = child.peak_bytes()
    bench.say(f"{name}: with gradient checkpointing TRL takes {seconds:.1f} s for the heaviest batch")
    ours, theirs = (max(side) / GIGABYTE for side in zip(*peaks, strict=True))
    bar = MEMORY_BAR if case.method == "dpo" else None
    bench.lines += [
        Line(case=name, what="memory", unit="GB", ours=ours, trl=theirs),
        Line(case=name, what="memory, checkpointing", unit="GB", ours=ours, trl=least / GIGABYTE, bar=bar),
    ]


def run_modes(bench: Bench, name: str, case: Case, data: Data, settings: Settings) -> list[tuple[int, int]]:
    """Return the peaks of both sides' memory in each mode."""
    return [run_mode(bench, name, mode, case, data, settings | more) for mode, more in case.modes.items()]


def run_mode(bench: Bench, name: str, mode: str, case: Case, data: Data, settings: Settings) -> tuple[int, int]:
    """Let both sides take all steps in turn; note what they took and return the peaks of their memory."""
    path = bench.scratch / name / "rows.jsonl"
    with bench.trl(case.method, path, settings) as theirs, bench.ours(case.method, path, f"cache-{name}") as ours:
        taken = interleaved(bench, f"{name} {mode}".strip(), ours, theirs, data)
        peaks = ours.peak_bytes(), theirs.peak_bytes()
    note(bench, name, mode, case, data, ours.facts, taken)
    return peaks


def interleaved(bench: Bench, what: str, ours: Child, theirs: Child, data: Data) -> list[tuple[Any, Any]]:
    """Return what both said of each step, which they took in turn: now one first, now the other."""
    taken = []
    for number, batch in enumerate(data.batches()):
        if number % 2:
            other, one = theirs.step(), ours.step()
        else:
            one, other = ours.step(), theirs.step()
        taken.append((one, other))
        tokens = f"{needed(batch)} tokens, {padded(batch)} padded"
        seconds = f"{one['seconds']:.2f} s, TRL {other['seconds']:.2f} s, {other['seconds'] / one['seconds']:.2f}"
        losses = f"losses {one['loss']:.5f} {other['loss']:.5f}"
        bench.say(f"{what} {number + 1}/{data.num_steps}: {tokens}: {seconds}; {losses}")
    return taken


def note(
    bench: Bench,
    name: str,
    mode: str,
    case: Case,
    data: Data,
    facts: Mapping[str, Any],
    taken: Sequence[tuple[Any, Any]],
) -> None:
    """Work out the figures of one mode: a step, the whole pass, the share of the machine, how near the losses are."""
    tokens = [needed(batch) for batch in data.batches()]
    cold, label = mode == "reference", f"{name}, {mode}" if mode else name

    def both(clock: str) -> tuple[list[float], list[float]]:
        """Return each step's seconds by a clock, where ours bears its tokens' part of the reference pass."""
        extra = facts["reference"][clock] / sum(tokens) if cold else 0.0
        ours = [one[clock] + extra * number for (one, _), number in zip(taken, tokens, strict=True)]
        return ours, [other[clock] for _, other in taken]

    (ours, theirs), (cpu, their_cpu) = both("seconds"), both("cpu_seconds")
    pairs, cpu_pairs = (
        tuple(other / one for one, other in zip(*each, strict=True)) for each in ((ours, theirs), (cpu, their_cpu))
    )
    # The layout is tried once a run, however many rows it has: what is measured here bears its part of that.
    once = facts["check_seconds"] * data.num_steps * rows.BATCH / case.source.count
    whole = sum(ours) + once
    bench.lines += [
        Line(case=label, what="step", unit="s", ours=median(ours), trl=median(theirs), pairs=pairs, bar=case.step_bar),
        Line(case=label, what="step, of all cores", unit="s", ours=median(cpu), trl=median(their_cpu), pairs=cpu_pairs),
        Line(case=label, what="whole pass", unit="s", ours=whole, trl=sum(theirs), bar=case.whole_bar),
    ]
    work = [each["train"] + (each["reference"] if cold else 0.0) for each in facts["operations"]]
    shares = {side: sum(work) / sum(seconds) / bench.rate for side, seconds in (("ours", ours), ("trl", theirs))}
    apart = [difference(one, other) for one, other in taken]
    bench.facts[label] = {
        "rows": data.reported, "tokens": tokens, "padded": [padded(batch) for batch in data.batches()],
        "seconds": ours, "trl_seconds": theirs, "losses": [[one["loss"], other["loss"]] for one, other in taken],
        "gemm_share": shares, "first_step_difference": apart[0], "greatest_difference": max(apart),
        "same_work": apart[0] <= CLOSE, "check_seconds": facts["check_seconds"], "how": facts["how"],
    }  # fmt: skip
    bench.say(
        f"{label}: {shares['ours']:.0%} of the measured GEMM rate, TRL {shares['trl']:.0%}, of the arithmetic needed; "
        f"values of the first step differ by {apart[0]:.1e}, of all steps by {max(apart):.1e} at most"
    )


def fastest(bench: Bench, name: str, case: Case, data: Data) -> Settings:
    """Return TRL's settings that take least time for two steps."""
    path = data.write(bench.scratch / name / "few.jsonl", 0, 2)
    seconds = []
    for settings in SETTINGS[case.method]:
        with bench.trl(case.method, path, settings) as child:
            steps = [child.step(), child.step()]
            seconds.append(sum(step["seconds"] for step in steps))
            cpu_seconds, peak = sum(step["cpu_seconds"] for step in steps), child.peak_bytes() / GIGABYTE
        took = f"{seconds[-1]:.1f} s for two steps ({cpu_seconds:.1f} s of all cores)"
        bench.say(f"{name}: TRL with {settings}: {took}, {peak:.1f} GB")
    best = SETTINGS[case.method][seconds.index(min(seconds))]
    bench.facts[f"{name}, settings"] = {"tried": SETTINGS[case.method], "seconds": seconds, "taken": best}
    return best


def run_trial(bench: Bench, data: Data) -> None:
    """Measure the second trial of a sweep, all cached, next to the second run of a TRL script, as whole processes.

    Their memory is that of the machine, with a GPU too.
    """
    folder = bench.scratch / "trial"
    path = data.write(folder / "rows.jsonl")
    heaviest = data.write(folder / "heaviest.jsonl", data.heaviest, data.heaviest + 1)
    command = [sys.executable, "-m", "runner", *overrides(bench.source, "dpo", bench.gpu), f"dataset.train={path}"]
    best = SETTINGS["dpo"][0] | {"precompute_ref_log_probs": True}

    def script(learning_rate: float, settings: Settings = best, data: Path = path) -> tuple[float, int]:
        asked = json.dumps(bench.asked("dpo", data, settings, learning_rate))
        whole = [sys.executable, "-m", f"{HERE}.trl_side", asked, "whole"]
        return pipe.run(whole, folder / "trl", bench.variables("trial"))

    def trial(learning_rate: float) -> tuple[float, int]:
        line = [*command, f"backend.learning_rate={learning_rate}"]
        return pipe.run(line, folder / "ours", bench.variables("trial"))

    (first, _), (our_first, _) = script(LEARNING_RATE), trial(LEARNING_RATE)
    (theirs, peak), (ours, our_peak) = script(LEARNING_RATE / 2), trial(LEARNING_RATE / 2)
    _, checkpointing = script(LEARNING_RATE, best | LESS_MEMORY, heaviest)
    bench.say(f"trial: first processes: {our_first:.1f} s, TRL {first:.1f} s; second: {ours:.1f} s, TRL {theirs:.1f} s")
    bench.facts["trial"] = {"rows": data.reported, "first_seconds": our_first, "trl_first_seconds": first}
    ours_gb, theirs_gb, least_gb = (each / GIGABYTE for each in (our_peak, peak, checkpointing))
    bench.lines += [
        Line(case="trial", what="second process", unit="s", ours=ours, trl=theirs, bar=TRIAL_BAR),
        Line(case="trial", what="memory", unit="GB", ours=ours_gb, trl=theirs_gb),
        Line(case="trial", what="memory, checkpointing", unit="GB", ours=ours_gb, trl=least_gb, bar=MEMORY_BAR),
    ]


def run_bfloat16(bench: Bench, data: Data) -> None:
    """Print what TRL takes for a step with bf16, its default; it is not counted."""
    path = data.write(bench.scratch / "bf16.jsonl", 0, 1)
    with bench.trl("dpo", path, SETTINGS["dpo"][0] | {"bf16": True}) as child:
        seconds = child.step()["seconds"]
    bench.say(f"equal: TRL with bf16=True, its default: {seconds:.1f} s for a step")
    bench.facts["equal, bf16"] = {"trl_seconds": seconds}


def run_model(source: str, asked: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Measure what is asked for with one model, print the table, and return all figures."""
    model, here = models.fetch(source), hardware.measured()
    if here is None:
        raise SystemExit(
            "bench_trl: this machine could not be measured; python -m runner.backends.local.machine.benchmark"
        )
    gpu = here.device != here.host.cpu
    rate = here.gemm.bfloat16 if gpu else here.gemm.float32
    bench = Bench(source, model, gpu, here.threads, rate, scratch)
    bench.say(f"{source}\n{here.device}, {'bfloat16' if gpu else 'float32'} products at {rate / 1e9:,.0f} GFLOP/s")
    data = {
        name: rows.read(case.source, asked.data, asked.steps or case.steps, ChatTokenizer(model), scratch / name)
        for name, case in CASES.items()
    }
    for name in asked.only:
        if name == "trial":
            steps = asked.steps or TRIAL_STEPS
            run_trial(bench, rows.read(CASES["hh"].source, asked.data, steps, ChatTokenizer(model), scratch / "trial"))
        else:
            bench.say(f"{name}: {data[name].reported}")
            run_case(bench, name, CASES[name], data[name], asked.trying)
    if asked.bf16:
        run_bfloat16(bench, data["equal"])
    bench.say(table(bench.lines))
    found = {"model": source, "device": here.device, "gflops_per_second": rate / 1e9, "facts": bench.facts}
    return {**rounded(found), "lines": [line.as_json() for line in bench.lines]}


def arguments() -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [*CASES, "trial"]
    parser.add_argument("--only", type=lambda text: text.split(","), default=names, metavar=",".join(names))
    parser.add_argument("--steps", type=int, help="optimizer steps a case")
    parser.add_argument("--data", type=Path, default=os.environ.get("RUNNER_TEST_DATA"), help="folder with real rows")
    parser.add_argument("--model", action="append", help="a model.source; several are measured one after the other")
    parser.add_argument("--try", dest="trying", action="store_true", help="find TRL's fastest settings first")
    parser.add_argument("--bf16", action="store_true", help="also print what TRL takes with bf16=True, its default")
    asked = parser.parse_args()
    unknown = set(asked.only) - set(names)
    if unknown:
        parser.error(f"--only: got {', '.join(sorted(unknown))}; allowed: {', '.join(names)}")
    return asked


def main() -> None:
    """Measure each model, and end with a line of JSON."""
    asked = arguments()
    own = str(OmegaConf.load(hydra_config.home() / "conf" / "model" / "smollm2.yaml").source)
    found = []
    for source in asked.model or [own]:
        with tempfile.TemporaryDirectory() as folder:
            found.append(run_model(source, asked, Path(folder)))
    sys.stdout.write(json.dumps({"benchmark": "trl", "models": found}) + "\n")


if __name__ == "__main__":
    main()
