"""Where the time of a run goes (`backend.profile=true`): a trace of some steps, and a one-page table.

profile.md       each part's share of the time, the kernels behind it, and the rate against this machine's own
trace.json.gz    the traced steps, for chrome://tracing or https://ui.perfetto.dev
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from runner.backends.local.machine.hardware import Machine
from runner.record import layout

TRACED = range(2, 5)
"""The steps that are traced: the first two find their memory and kernels still."""
PARTS = ("reference", "data", "forward", "backward", "optimizer", "evaluation", "logging")
# Names of torch's operators without their `aten::`; GPU kernels have names with gemm in them.
PRODUCTS = ("mm", "addmm", "addmm_", "bmm", "baddbmm", "linear", "attention")


class Profile:
    """Adds up the seconds of named parts; without a folder it does nothing and costs nothing."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.seconds: dict[str, float] = defaultdict(float)
        self.steps = 0
        self._trace: torch.profiler.profile | None = None
        self._kernels: dict[str, float] = {}

    @contextmanager
    def part(self, name: str, lanes: int = 1) -> Iterator[None]:
        """Count the block's time to a part, shared with the other lanes; on a GPU the block is waited for."""
        if self.folder is None:
            yield
            return
        began = time.perf_counter()
        try:
            yield
        finally:
            if torch.cuda.is_available():
                # A GPU's work continues after the call that asked for it: without waiting, its time would be counted
                # to the next part.
                torch.cuda.synchronize()
            # Lanes go side by side, each for the whole time: their sum would be more than the clock's.
            self.seconds[name] += (time.perf_counter() - began) / lanes

    def step(self) -> None:
        """Take note that a step begins; the trace begins and ends with one."""
        if self.folder is None:
            return
        if self.steps == TRACED.start:
            there = [torch.profiler.ProfilerActivity.CPU]
            there += [torch.profiler.ProfilerActivity.CUDA] if torch.cuda.is_available() else []
            self._trace = torch.profiler.profile(activities=there)
            self._trace.start()
        if self.steps == TRACED.stop:
            self._end_trace()
        self.steps += 1

    def write(self, flops: float, machine: Machine | None, dtype: str) -> None:
        """Write the table, where anything was measured; `flops` are those of all steps counted."""
        if self.folder is None or not self.steps:
            return
        self._end_trace()
        (self.folder / layout.PROFILE).write_text("\n".join(self._table(flops, machine, dtype)) + "\n", "utf-8")

    def _end_trace(self) -> None:
        if self._trace is not None and self.folder is not None:
            self._trace.stop()
            self._trace.export_chrome_trace(str(self.folder / layout.TRACE))
            self._kernels = kernels(self._trace)
            self._trace = None

    def _table(self, flops: float, machine: Machine | None, dtype: str) -> list[str]:
        training = sum(self.seconds[name] for name in ("data", "forward", "backward", "optimizer", "logging"))
        whole = sum(self.seconds.values())
        lines = [f"# Where the time went: {self.steps} steps, {training / self.steps:.3f} s each", ""]
        lines += ["| part | seconds | share |", "|---|---:|---:|"]
        lines += [f"| {name} | {self.seconds[name]:.2f} | {self.seconds[name] / whole:.1%} |" for name in PARTS]
        # Products with weights alone: attention and the output layer are not in `flops`, so the true rate is
        # higher.
        rate = flops / max(1e-9, self.seconds["forward"] + self.seconds["backward"])
        lines += ["", f"Forward and backward: {rate / 1e9:,.1f} GFLOP/s of products with the model's weights"]
        if machine is not None:
            best = getattr(machine.gemm, dtype)
            lines[-1] += f", {rate / best:.0%} of the {best / 1e9:,.0f} GFLOP/s that a product alone reaches here"
        lines[-1] += "."
        if self._kernels:
            lines += ["", f"| kernel (steps {TRACED.start + 1} to {TRACED.stop}) | share |", "|---|---:|"]
            lines += [f"| {name} | {share:.1%} |" for name, share in self._kernels.items()]
        return lines


def kernels(trace: torch.profiler.profile) -> dict[str, float]:
    """Return the share of a trace's time that products and attention took, and the ten most expensive others."""
    on_gpu = torch.cuda.is_available()
    times = {
        each.key: each.self_device_time_total if on_gpu else each.self_cpu_time_total for each in trace.key_averages()
    }
    whole = sum(times.values()) or 1.0
    names = {name: name.removeprefix("aten::") for name in times}
    products = {key for key, name in names.items() if name in PRODUCTS[:-1] or PRODUCTS[-1] in name or "gemm" in name}
    rest = sorted((key for key in times if key not in products), key=lambda key: -times[key])
    shares = {"products and attention": sum(times[key] for key in products) / whole}
    return shares | {names[key]: times[key] / whole for key in rest[:10]}
