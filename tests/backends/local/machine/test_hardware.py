"""What this machine can do is measured once, by a process of its own, and `auto` goes by it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from runner import methods
from runner.backends.local.backend import BACKEND
from runner.backends.local.keys import Local, Runtime
from runner.backends.local.machine import benchmark, hardware
from runner.backends.local.machine.hardware import Host, Machine
from runner.errors import RequestError
from tests.conftest import measurement

HOST = hardware.host("cpu") or pytest.fail("torch is not installed")
MEASURED = measurement(HOST)
SAYS = "measuring this machine, once"


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("RUNNER_MACHINE", "OMP_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("RUNNER_CACHE", str(tmp_path / "cache"))
    hardware.measured.cache_clear()


@pytest.fixture
def measuring(tmp_path: Path) -> Callable[..., Path]:
    """Return a program that stands for Python, and measures at once: it prints what it is made with."""

    def make(found: object, seconds: float = 0.0) -> Path:
        (tmp_path / "found.json").write_bytes(msgspec.json.encode(found))
        program = tmp_path / "python"
        program.write_text(f"#!/bin/sh\necho $2 >> {tmp_path}/asked\nsleep {seconds}\ncat {tmp_path}/found.json\n")
        program.chmod(0o755)
        return program

    return make


def forget() -> None:
    """Stand for the start of another process."""
    hardware.measured.cache_clear()


def kept(tmp_path: Path) -> list[Path]:
    return sorted(path for path in (tmp_path / "cache" / "machines").iterdir() if path.suffix != ".lock")


def pin(found: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pinned.json").write_bytes(msgspec.json.encode(found))
    monkeypatch.setenv("RUNNER_MACHINE", str(tmp_path / "pinned.json"))


def resolved(settings: Local) -> tuple[Any, Any]:
    method = methods.load("dpo")
    found, _, reasons = BACKEND.resolve(settings, method, method.hyperparameters(), 100)
    return found, reasons


@pytest.mark.slow
def test_the_first_plan_measures_without_importing_torch_and_the_next_is_the_same(tmp_path: Path) -> None:
    script = (
        "import sys, atexit; sys.argv = ['runner', 'mode=plan']\n"
        "atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr))\n"
        "from runner.__main__ import main; main()\n"
    )
    first, second = (
        subprocess.run(
            [sys.executable, "-c", script], cwd=tmp_path, env=os.environ | {"COLUMNS": "200"},
            capture_output=True, text=True, check=True,
        )
        for _ in range(2)
    )  # fmt: skip
    assert [SAYS in process.stderr for process in (first, second)] == [True, False]
    assert [process.stderr.splitlines()[-1] for process in (first, second)] == ["False", "False"]
    assert first.stdout == second.stdout
    assert "GFLOP/s here" in first.stdout
    assert "backend.runtime.threads" in first.stdout
    found = hardware.known()
    assert found is not None
    assert found.host == HOST
    assert found.device == HOST.cpu
    assert 1 <= found.threads <= HOST.usable_cores
    for rate in (found.gemm.float32, found.gemm.bfloat16, *found.gemm_by_threads.values()):
        assert 1e7 < rate < 1e14


def test_what_was_measured_is_read_and_not_measured_again(
    measuring: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert hardware.known() is None
    monkeypatch.setattr(sys, "executable", str(measuring(MEASURED)))
    assert hardware.measured() == MEASURED
    assert SAYS in capfd.readouterr().err
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    forget()
    assert hardware.measured() == hardware.known() == MEASURED
    assert capfd.readouterr().err == ""
    assert [path.suffix for path in kept(tmp_path)] == [".json"]


def broken(**changed: object) -> bytes:
    return json.dumps(json.loads(msgspec.json.encode(MEASURED)) | changed).encode()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        msgspec.json.encode(MEASURED)[:-9],
        broken(gemm={"float32": 0, "bfloat16": 1e9}),
        broken(gemm={"float32": 1e9}),
        broken(gemm_by_threads={}),
        broken(host=json.loads(msgspec.json.encode(replace(HOST, torch="0.1")))),
    ],
    ids=["empty", "null", "cut off", "zero", "half", "no threads", "foreign"],
)
def test_a_file_that_is_damaged_or_foreign_is_measured_again(
    content: bytes, measuring: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(measuring(MEASURED)))
    hardware.measured()
    (path,) = kept(tmp_path)
    path.write_bytes(content)
    assert hardware.known() is None
    forget()
    assert hardware.measured() == hardware.known() == MEASURED


def test_two_processes_at_once_measure_once(measuring: Callable[..., Path], tmp_path: Path) -> None:
    script = "import sys; from runner.backends.local.machine import hardware; sys.executable = sys.argv[1]\n"
    script += "print(hardware.measured().gemm.float32)"
    line = [sys.executable, "-c", script, str(measuring(MEASURED, seconds=0.5))]
    both = [subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) for _ in range(2)]
    assert [process.communicate(timeout=120)[0].strip() for process in both] == [str(MEASURED.gemm.float32)] * 2
    assert (tmp_path / "asked").read_text() == f"{hardware.MEASURE}\n"
    assert [path.suffix for path in kept(tmp_path)] == [".json"]


def test_a_cache_that_cannot_be_written_hinders_nothing(
    measuring: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("a file, where the folder would be")
    monkeypatch.setattr(sys, "executable", str(measuring(MEASURED)))
    assert hardware.measured() == MEASURED


@pytest.mark.parametrize("found", [None, "no such device", measurement(replace(HOST, torch="0.1"))])
def test_without_a_measurement_the_weights_are_float32_and_torch_chooses_the_threads(
    found: object, measuring: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(measuring(found)))
    settings, reasons = resolved(Local())
    assert (settings.dtype, settings.runtime.threads) == ("float32", "auto")
    assert "not measured" in reasons["backend.dtype"]
    assert "backend.runtime.threads" not in reasons


def test_without_torch_nothing_is_measured(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert hardware.known() is None
    assert hardware.measured() is None
    assert resolved(Local())[0].dtype == "float32"
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("float32", "bfloat16", "chosen"),
    [
        (290e9, 45e9, ("float32", "float32: 290 GFLOP/s here, bfloat16 45")),
        (290e9, 290e9, ("float32", "float32: 290 GFLOP/s here, bfloat16 290")),
        (200e9, 299e9, ("float32", "float32: 200 GFLOP/s here, bfloat16 299")),
        (200e9, 300e9, ("bfloat16", "bfloat16: 300 GFLOP/s here, float32 200")),
        (51e12, 612e12, ("bfloat16", "bfloat16: 612,000 GFLOP/s here, float32 51,000")),
    ],
)
def test_bfloat16_is_chosen_where_it_is_clearly_faster(
    float32: float, bfloat16: float, chosen: tuple[str, str]
) -> None:
    assert hardware.choose_dtype(measurement(HOST, float32, bfloat16)) == chosen


def test_the_fastest_number_of_threads_is_chosen() -> None:
    one, two = replace(MEASURED, gemm_by_threads={4: 9e9}), replace(MEASURED, gemm_by_threads={4: 9e9, 8: 7e9})
    assert hardware.choose_threads(one, {}) == (4, "the cores this process may use")
    assert hardware.choose_threads(two, {}) == (4, "the fastest of 4 or 8 here")
    assert hardware.choose_threads(None, {}) is None


@pytest.mark.parametrize(("asked", "threads"), [("3", 3), ("3,1", 3), ("0", 4), ("", 4), ("all", 4)])
def test_threads_asked_for_in_the_usual_variable_go_first(asked: str, threads: int) -> None:
    chosen = hardware.choose_threads(replace(MEASURED, gemm_by_threads={4: 9e9}), {"OMP_NUM_THREADS": asked})
    assert chosen is not None
    assert chosen[0] == threads


def test_a_plan_takes_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pin(replace(measurement(HOST, 1e9, 3e9), gemm_by_threads={5: 1e9, 6: 2e9}), tmp_path, monkeypatch)
    settings, reasons = resolved(Local())
    assert (settings.dtype, settings.runtime.threads) == ("bfloat16", 6)
    assert reasons["backend.dtype"] == "bfloat16: 3 GFLOP/s here, float32 1"
    assert reasons["backend.runtime.threads"] == "the fastest of 5 or 6 here"
    assert resolved(Local(tuning="full"))[0].dtype == "float32"


def test_a_request_that_names_both_is_resolved_without_a_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNNER_MACHINE", "/nowhere")
    settings, _ = resolved(Local(dtype="bfloat16", runtime=Runtime(threads=3)))
    assert (settings.dtype, settings.runtime.threads) == ("bfloat16", 3)
    with pytest.raises(RequestError, match=r"RUNNER_MACHINE: /nowhere holds no measurement"):
        resolved(Local())


def test_a_measurement_holds_for_one_device_and_one_set_of_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    def host(wanted: str) -> Host:
        found = hardware.host(wanted)
        assert found is not None
        return found

    assert host("auto") == host("cpu") == HOST
    monkeypatch.setattr(hardware, "_accelerators", lambda: "NVIDIA A100")
    assert host("cpu") == HOST
    assert host("auto") == replace(HOST, wanted="auto", accelerators="NVIDIA A100")


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, 8),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "250000 100000\n"}, 2),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "300000 100000\n"}, 3),
        ({"proc/self/cgroup": "0::/outer/pod\n", "sys/fs/cgroup/cpu.max": "400000 100000\n"}, 4),
        (
            {
                "proc/self/cgroup": "2:cpuset:/\n1:cpu,cpuacct:/pod\n0::/\n",
                "sys/fs/cgroup/cpu,cpuacct/pod/cpu.cfs_quota_us": "600000\n",
                "sys/fs/cgroup/cpu,cpuacct/pod/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            6,
        ),
        ({}, 8),
    ],
    ids=["no quota", "two and a half", "half a core", "outer group", "container", "version 1", "no groups"],
)
def test_a_quota_bounds_the_cores(
    files: dict[str, str], cores: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    assert hardware.usable_cores(tmp_path) == cores


def test_a_burst_of_products_counts_each() -> None:
    bench = benchmark.Bench(torch.device("cpu"), rows=4, burst=3)
    done: list[int] = []

    def work() -> None:
        time.sleep(0.02)
        done.append(1)

    seconds = bench.seconds({"sleep": work})["sleep"]
    assert 0.02 <= seconds < 0.06
    assert len(done) % 3 == 0


def test_two_threads_of_a_core_are_one_physical_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(4)))
    assert benchmark.physical_cores(tmp_path) == 4
    for number in range(4):
        folder = tmp_path / f"sys/devices/system/cpu/cpu{number}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{number % 2},{number % 2 + 2}\n")
    assert benchmark.physical_cores(tmp_path) == 2
