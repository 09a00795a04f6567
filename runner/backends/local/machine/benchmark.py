"""Measures what this machine can do and prints it as JSON: about a second beyond importing torch. Keeps nothing.

    python -m runner.backends.local.machine.benchmark [auto | cpu | cuda | mps]

Products of matrices as in training: some hundred tokens against weights of a small and of a middling model. A GPU
gets more tokens, as it would in training, and many products between two looks at the clock.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import msgspec
import torch

from runner.backends.local import model
from runner.backends.local.machine import hardware
from runner.backends.local.machine.hardware import Machine, Rates

# Layers of a model with 135 million weights, and of one with about a billion.
WEIGHTS = ((576, 1536), (2048, 2048))
# The fewest tokens of a lane (parallel/lanes.py); a GPU needs more to be busy.
CPU_ROWS, GPU_ROWS = 512, 8192
GPU_BURST = 8
SECONDS = 0.2
"""Spent on each shape, and on each number of threads twice over; what is slower than that is done once."""


@dataclass(frozen=True)
class Bench:
    """Where work is timed, and how: so many rows a product, so many products between two looks at the clock."""

    device: torch.device
    rows: int
    burst: int

    def wait(self) -> None:
        """Return when the device has done all it was given: a GPU's work continues after the call that asked for it."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()

    def product(self, inner: int, outer: int, dtype: torch.dtype) -> Callable[[], object]:
        """Return what multiplies (rows, inner) by a layer's weights (outer, inner), into memory it has already."""
        tokens = torch.randn(self.rows, inner, device=self.device, dtype=dtype)
        weights = torch.randn(outer, inner, device=self.device, dtype=dtype).t()
        out = torch.empty(self.rows, outer, device=self.device, dtype=dtype)
        # Into memory that is there: allocating would be timed with it.
        return lambda: torch.mm(tokens, weights, out=out)

    def seconds(self, works: Mapping[str, Callable[[], object]]) -> dict[str, float]:
        """Return each work's median seconds; they take turns, so that other load on the machine strikes all alike."""

        def timed(work: Callable[[], object]) -> float:
            began = time.perf_counter()
            for _ in range(self.burst):
                work()
            self.wait()
            return (time.perf_counter() - began) / self.burst

        until = time.perf_counter() + SECONDS
        found = {name: [timed(work)] for name, work in works.items()}  # the first is a warm-up
        while time.perf_counter() < until:
            for name, work in works.items():
                found[name].append(timed(work))
        # The median, as other load makes some products slow and none fast.
        return {name: median(times[1:] or times) for name, times in found.items()}

    def rates(self, *names: str) -> dict[str, float]:
        """Return the floating-point operations per second over all shapes, by the name of a dtype."""
        dtypes = {name: getattr(torch, name) for name in names}
        for dtype in dtypes.values():  # the first product of a process loads libraries
            self.product(64, 64, dtype)()
        self.wait()
        operations, seconds = 0, dict.fromkeys(names, 0.0)
        for inner, outer in WEIGHTS:
            operations += 2 * self.rows * inner * outer
            found = self.seconds({name: self.product(inner, outer, dtype) for name, dtype in dtypes.items()})
            seconds = {name: seconds[name] + found[name] for name in names}
        return {name: operations / seconds[name] for name in names}


def measure(wanted: str = "auto") -> Machine:
    """Measure the device that `backend.runtime.device` names, and the CPU's threads.

    Raises `RequestError` where torch does not find that device.
    """
    host = hardware.host(wanted)
    assert host is not None, "torch is imported, so it is installed"
    device = model.device(wanted)
    cpu = Bench(torch.device("cpu"), CPU_ROWS, 1)
    by_threads = {}
    for threads in sorted({host.usable_cores, min(physical_cores(), host.usable_cores)}):
        torch.set_num_threads(threads)
        by_threads[threads] = cpu.rates("float32")["float32"]
    # The rates of a CPU are those with its best number of threads.
    torch.set_num_threads(max(by_threads, key=by_threads.__getitem__))
    bench = cpu if device.type == "cpu" else Bench(device, GPU_ROWS, GPU_BURST)
    return Machine(
        host=host,
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else host.cpu,
        gemm=Rates(**bench.rates("float32", "bfloat16")),
        gemm_by_threads=by_threads,
    )


def physical_cores(root: Path = Path("/")) -> int:
    """Return the physical cores behind those that this process may use; all of them where the system does not say."""
    numbers = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    places = [root / f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list" for number in numbers]
    # Siblings name each other in this file, so that equal texts are one core.
    return len({place.read_text() if place.exists() else place.parts[-3] for place in places})


def main() -> None:
    """Measure, and print what was found."""
    found = measure(*sys.argv[1:2])
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(found)).decode() + "\n")


if __name__ == "__main__":
    main()
