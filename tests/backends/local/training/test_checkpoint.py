"""A checkpoint is whole or not there, brings back every bit, and a write that fails harms none before it."""

import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from runner.backends.local.training import checkpoint
from runner.backends.local.training.checkpoint import State, Writer, load, optimizer_tensors, restore_optimizer, steps
from runner.errors import RunnerError
from tests import warm

pytestmark = pytest.mark.slow

MB = 250_000  # numbers of four bytes


def state(step: int, size: int = 3) -> State:
    """Return a state that reports in each of its parts which step it is of."""
    return State(
        step,
        weights={"layer.weight": torch.full((size,), float(step))},
        optimizer={
            "layer.weight/exp_avg": torch.full((size,), 2.0 * step),
            "layer.weight/step": torch.tensor(float(step)),
        },
        extra={"ema": {"layer.weight": torch.full((size,), 3.0 * step)}},
        progress={"best": {"step": step, "loss": 0.1 + 0.2}, "since": step},
    )


def bits(tensors: checkpoint.Tensors) -> dict[str, tuple[torch.dtype, torch.Size, bytes]]:
    """Return what must be equal for tensors to be the same, not-a-numbers included."""
    return {
        name: (tensor.dtype, tensor.shape, tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        for name, tensor in tensors.items()
    }


def same(one: State | None, other: State) -> bool:
    if one is None or one.extra.keys() != other.extra.keys():
        return False
    groups = [(one.weights, other.weights), (one.optimizer, other.optimizer)]
    groups += [(one.extra[name], other.extra[name]) for name in other.extra]
    return (one.step, one.progress) == (other.step, other.progress) and all(bits(a) == bits(b) for a, b in groups)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def learner() -> tuple[dict[str, torch.Tensor], torch.optim.Optimizer]:
    weights = {"matrix": torch.ones(3, 2, requires_grad=True), "vector": torch.zeros(2, requires_grad=True)}
    return weights, torch.optim.AdamW(weights.values(), lr=0.1)


def take_step(weights: dict[str, torch.Tensor], adam: torch.optim.Optimizer, step: int) -> None:
    noise = torch.randn(3, 2, generator=torch.Generator().manual_seed(step))
    ((weights["matrix"] * noise).sum() + weights["vector"].exp().sum()).backward()
    adam.step()
    adam.zero_grad()


def test_without_a_checkpoint_there_is_no_state(tmp_path: Path) -> None:
    assert load(tmp_path) is None
    assert load(tmp_path / "not-there-yet") is None


def test_every_bit_comes_back(tmp_path: Path) -> None:
    odd = {
        "half": torch.tensor([1.0, -0.0, float("inf"), 3e-39]).bfloat16(),
        "not-a-number": torch.tensor([0x7FC12345, -1], dtype=torch.int32).view(torch.float32),
        "turned": torch.arange(6.0).reshape(2, 3).t(),
        "a slice": torch.arange(10)[3:5],
        "scalar": torch.tensor(1.5, dtype=torch.float64),
        "empty": torch.zeros(0, 4),
        "flags": torch.tensor([True, False]),
    }
    learns = {"weight": torch.rand(3, requires_grad=True)}
    given = State(0, odd | learns, {}, {"ema": odd, "none": {}}, {"loss": 0.1 + 0.2, "name": "é", "list": [1, None]})
    with Writer(tmp_path) as writer:
        writer.save(given)
    expected = State(0, odd | {"weight": learns["weight"].detach()}, given.optimizer, given.extra, given.progress)
    assert same(load(tmp_path), expected)


def test_a_run_from_a_checkpoint_ends_in_the_same_bits(tmp_path: Path) -> None:
    weights, adam = learner()
    take_step(weights, adam, 1)
    with Writer(tmp_path) as writer:
        writer.save(State(1, weights, optimizer_tensors(weights, adam)))
    take_step(weights, adam, 2)
    again, other_adam = learner()
    stored = load(tmp_path)
    assert stored is not None
    checkpoint.load_weights(steps(tmp_path)[-1] / "weights.safetensors", again)
    restore_optimizer(again, other_adam, stored.optimizer)
    take_step(again, other_adam, 2)
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    one, other = optimizer_tensors(weights, adam), optimizer_tensors(again, other_adam)
    assert bits(one) == bits(other)
    assert one.keys() == {f"{name}/{key}" for name in weights for key in ("step", "exp_avg", "exp_avg_sq")}


def test_an_optimizer_that_took_no_step_is_restored_as_such() -> None:
    weights, adam = learner()
    take_step(weights, adam, 1)
    restore_optimizer(weights, adam, {})
    assert optimizer_tensors(weights, adam) == {}


def test_steps_after_a_save_do_not_change_what_is_written(tmp_path: Path) -> None:
    given = state(1, size=4 * MB)
    with Writer(tmp_path) as writer:
        writer.save(given)
        for tensors in (given.weights, given.optimizer, given.extra["ema"]):
            for tensor in tensors.values():
                tensor.zero_()
        weights = {"layer.weight": torch.ones(4 * MB)}
        writer.best(weights)
        weights["layer.weight"].zero_()
    assert same(load(tmp_path), state(1, size=4 * MB))
    assert load_file(tmp_path / "best.safetensors")["layer.weight"].eq(1).all()


def test_what_is_loaded_outlives_its_checkpoint(tmp_path: Path) -> None:
    with Writer(tmp_path) as writer:
        writer.save(state(1))
    found = load(tmp_path)
    shutil.rmtree(tmp_path)
    assert same(found, state(1))
    maps = Path("/proc/self/maps")  # a file that is mapped holds its space on the disk
    assert not maps.exists() or str(tmp_path) not in maps.read_text()


def test_the_copy_is_let_go_once_it_is_written(tmp_path: Path) -> None:
    size = 12_347

    def in_memory() -> int:
        gc.collect()
        return sum(type(each) is torch.Tensor and each.shape == (size,) for each in gc.get_objects())

    given = state(1, size=size)
    before = in_memory()
    with Writer(tmp_path) as writer:
        writer.save(given)
        for _ in range(100):  # no call of ours: between two checkpoints there is none
            if in_memory() == before:
                break
            time.sleep(0.01)
        assert in_memory() == before
        assert len(steps(tmp_path)) == 1


def test_only_the_last_ones_are_kept(tmp_path: Path) -> None:
    with Writer(tmp_path, keep=2) as writer:
        for step in (3, 6, 9):
            writer.save(state(step))
        writer.flush()
        assert names(tmp_path) == ["step-00000006", "step-00000009"]


def test_a_step_reached_again_is_not_written_again(tmp_path: Path) -> None:
    with Writer(tmp_path) as writer:
        writer.save(state(3))
        writer.flush()
        before = steps(tmp_path)[0].stat().st_ino
        writer.save(state(3))
    assert [path.stat().st_ino for path in steps(tmp_path)] == [before]


def test_no_pickle_is_written(tmp_path: Path) -> None:
    with Writer(tmp_path) as writer:
        writer.save(state(1))
    assert names(steps(tmp_path)[0]) == [
        "ema.safetensors",
        "optimizer.safetensors",
        "state.json",
        "weights.safetensors",
    ]


def test_drafts_of_killed_processes_are_not_seen_and_are_cleaned_away(tmp_path: Path) -> None:
    with Writer(tmp_path) as writer:
        writer.save(state(1))
    (tmp_path / ".step-00000002").mkdir()
    for name in (".step-00000002/weights.safetensors", ".best.safetensors", ".tmpAbCdEf"):
        (tmp_path / name).write_bytes(b"torn")
    assert same(load(tmp_path), state(1))
    with Writer(tmp_path) as writer:
        assert names(tmp_path) == ["step-00000001"]
        writer.save(state(2))
    assert same(load(tmp_path), state(2))


@pytest.mark.parametrize("file", ["weights.safetensors", "state.json", "optimizer.safetensors"])
@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(b"torn")], ids=["gone", "torn"])
def test_a_damaged_checkpoint_is_reported_in_a_sentence(file: str, harm, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    with Writer(tmp_path, keep=2) as writer:
        writer.save(state(1))
        writer.save(state(2))
    harm(steps(tmp_path)[-1] / file)
    with pytest.raises(RunnerError, match=r"step-00000002: .* remove this folder, .* resumes from step-00000001\.$"):
        load(tmp_path)
    shutil.rmtree(steps(tmp_path)[-1])
    assert same(load(tmp_path), state(1))


def test_a_failure_is_raised_by_the_next_call_and_not_again_on_leaving(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    with Writer(folder) as writer:
        shutil.rmtree(folder)
        writer.save(state(1))  # hands over; it is the thread that fails
        with pytest.raises(RunnerError, match=r"step-00000001: No such file .* there is none yet; fix"):
            writer.save(state(2))
        folder.mkdir()
    assert names(folder) == []


def save_where_none_can_be(folder: Path, then: Callable[[], object]) -> None:
    with Writer(folder) as writer:
        shutil.rmtree(folder)
        writer.save(state(1))
        then()


def test_a_failure_that_no_call_met_is_raised_on_leaving(tmp_path: Path) -> None:
    with pytest.raises(RunnerError, match="step-00000001: No such file"):
        save_where_none_can_be(tmp_path / "checkpoints", lambda: None)


def test_an_error_of_the_block_comes_before_a_failed_write(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        save_where_none_can_be(tmp_path / "checkpoints", lambda: 1 / 0)
    assert "step-00000001: No such file" in caught.value.__notes__[0]


def test_a_mistake_of_ours_is_raised_as_it_is(tmp_path: Path) -> None:
    with Writer(tmp_path) as writer:
        writer.save(state(1))
        writer.save(State(2, {"weight": torch.zeros(2, dtype=torch.complex128)}, {}))  # a type that cannot be stored
        with pytest.raises(KeyError, match="complex128"):
            writer.flush()
    assert same(load(tmp_path), state(1))
    assert names(tmp_path) == ["step-00000001"]


def test_no_checkpoint_speaks_of_best_weights_that_are_not_there(tmp_path: Path) -> None:
    with Writer(tmp_path) as writer:
        writer.save(state(1))
        writer.flush()
        (tmp_path / "best.safetensors" / "in the way").mkdir(parents=True)
        writer.best({"layer.weight": torch.ones(3)})
        for _ in range(2):  # also for a caller who continues after the first
            with pytest.raises(RunnerError, match=r"best\.safetensors: Is a directory; .* step-00000001 is whole"):
                writer.save(state(2))
    assert names(tmp_path) == ["best.safetensors", "step-00000001"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("only root on Linux can mount a small disk; the limit on a file's size is tested everywhere")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_full_disk_is_reported_and_the_last_good_checkpoint_is_kept(small_disk: Path) -> None:
    folder = small_disk / "checkpoints"
    with Writer(folder, keep=2) as writer:
        writer.save(state(1, size=MB // 2))  # 1.5 MB
        writer.flush()
        (small_disk / "ballast").write_bytes(bytes(2_000_000))
        writer.best({"layer.weight": torch.ones(MB // 2)})
        free = shutil.disk_usage(small_disk).free
        writer.save(state(2, size=MB * 3 // 2))  # 4.5 MB, of which the first files fit
        reported = (
            r"disk/checkpoints/step-00000002: No space left on device; 4\.5 MB are needed and 4\.\d MB free; "
            r"the last good checkpoint: step-00000001 is whole; free space, and the same command resumes from it\.$"
        )
        with pytest.raises(RunnerError, match=reported):
            writer.flush()
    assert names(folder) == ["best.safetensors", "step-00000001"]
    assert free - 500_000 - 4096 * 4 <= shutil.disk_usage(small_disk).free <= free
    assert same(load(folder), state(1, size=MB // 2))
    (small_disk / "ballast").unlink()
    with Writer(folder, keep=2) as writer:  # the same command again
        writer.save(state(2, size=MB * 3 // 2))
    assert same(load(folder), state(2, size=MB * 3 // 2))


def test_best_weights_that_do_not_fit_leave_the_ones_before(small_disk: Path) -> None:
    with Writer(small_disk) as writer:
        writer.best({"layer.weight": torch.ones(MB)})
        writer.best({"layer.weight": torch.zeros(2 * MB)})
        writer.best({"layer.weight": torch.zeros(8 * MB)})
        with pytest.raises(
            RunnerError, match=r"best\.safetensors: No space left .* there is none yet; .* the start\.$"
        ):
            writer.flush()
    assert names(small_disk) == ["best.safetensors"]
    assert load_file(small_disk / "best.safetensors")["layer.weight"].shape == (2 * MB,)


def in_another_process(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-c", f"from {__name__} import *\n{script}", *map(str, arguments)]
    return warm.run(line, cwd=Path(__file__).parents[4], env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=120)


def test_a_file_that_may_not_grow_is_reported_and_the_last_good_checkpoint_is_kept(tmp_path: Path) -> None:
    script = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
with Writer(Path(sys.argv[1])) as writer:
    writer.save(state(1))
    writer.save(state(2, size=MB * 3 // 2))
"""
    process = in_another_process(script, tmp_path)
    assert "RunnerError" in process.stderr
    assert "step-00000002: File too large; 4.5 MB are needed" in process.stderr
    assert "step-00000001 is whole; fix that, and the same command resumes from it.\n" in process.stderr
    assert names(tmp_path) == ["step-00000001"]
    assert same(load(tmp_path), state(1))


def test_a_disk_that_hangs_does_not_hold_a_process_that_failed(tmp_path: Path) -> None:
    script = """
import threading
checkpoint.PATIENCE_SECONDS = 0.1
with Writer(Path(sys.argv[1])) as writer:
    writer._hand(Path(sys.argv[1]), 0, threading.Event().wait)  # a write that never returns
    raise ZeroDivisionError
"""
    process = in_another_process(script, tmp_path)
    assert process.returncode == 1
    assert process.stderr.endswith("ZeroDivisionError\n")


def write_until_interrupted(folder: Path, report: Path) -> None:
    """Continue from the checkpoint in a folder, a checkpoint and best weights each step; note the last one."""
    found = load(folder)
    step = found.step if found else 0
    with Writer(folder, keep=2) as writer, report.open("w") as notes:
        while True:
            step += 1
            writer.best({"layer.weight": torch.full((5_000,), float(step))})
            writer.save(state(step, size=5_000))
            os.pwrite(notes.fileno(), b"%08d" % step, 0)


DISTURB = """
import random, traceback
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job is started with it ignored
folder, report, number, rounds = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
rng, drafts = random.Random(7), 0
torch.set_num_threads(1)
for _ in range(rounds):
    before = steps(folder)[-1:]
    child = os.fork()
    if child == 0:
        try:
            write_until_interrupted(folder, report)
        except KeyboardInterrupt:
            os._exit(7)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    while steps(folder)[-1:] == before:  # until it has written one of its own
        assert os.waitpid(child, os.WNOHANG) == (0, 0)
        time.sleep(0.001)
    time.sleep(rng.uniform(0.01, 0.06))
    os.kill(child, number)
    status = os.waitpid(child, 0)[1]
    assert status == (number if number == signal.SIGKILL else 7 << 8), status
    left = [path for path in folder.glob(".*")]
    drafts += bool(left)
    for path in steps(folder):  # those before the last, too
        found = checkpoint._read(path)
        assert found.step == int(path.name[5:]) and same(found, state(found.step, size=5_000)), path
    best = load_file(folder / "best.safetensors")["layer.weight"]
    assert best.eq(best[0]).all() and best[0] >= found.progress["best"]["step"]
    handed = int(report.read_text() or 0)
    assert 1 <= len(steps(folder)) <= 3
    if number == signal.SIGINT:
        assert not left and found.step >= handed, (left, found.step, handed)
    else:
        assert found.step >= handed - 1
print(json.dumps({"step": found.step, "drafts": drafts}))
"""


def test_twenty_kills_at_random_moments_leave_whole_checkpoints(tmp_path: Path) -> None:
    process = in_another_process(DISTURB, tmp_path / "checkpoints", tmp_path / "report", int(signal.SIGKILL), 20)
    assert process.returncode == 0, process.stderr
    reported = json.loads(process.stdout)
    assert reported["step"] >= 20, "each process writes at least one"
    assert reported["drafts"] >= 5, "the kills came too seldom within a write to show anything"
    with Writer(tmp_path / "checkpoints", keep=1) as writer:
        writer.save(state(reported["step"] + 1))
    assert names(tmp_path / "checkpoints") == ["best.safetensors", f"step-{reported['step'] + 1:08d}"]


def test_twenty_times_ctrl_c_at_random_moments_lose_nothing_that_was_handed_over(tmp_path: Path) -> None:
    process = in_another_process(DISTURB, tmp_path / "checkpoints", tmp_path / "report", int(signal.SIGINT), 20)
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout)["step"] >= 20, "each process writes at least one"
