"""What this machine can do, as the local backend's `auto` goes by it: known without torch, measured once.

The measuring is done in a process of its own (benchmark.py), so that planning never imports torch. A measurement is
kept in the user's cache, one file a `Host`: a new torch, CPU or GPU is measured again. To measure again, remove
`machines/` there. `RUNNER_MACHINE` names a file to go by instead, which makes plans the same on different machines.
"""

import functools
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from itertools import takewhile
from pathlib import Path
from typing import Annotated

import msgspec

from runner import cache, distributed
from runner.data.checking.cores import usable_cores
from runner.errors import RequestError
from runner.request.types import PositiveFloat, PositiveInt

FASTER = 1.5
"""How many times as fast bfloat16 has to be to be worth its rounding."""
MEASURE = "runner.backends.local.machine.benchmark"
MEASURE_SECONDS = 120
"""Beyond this a measurement is given up: torch alone can take a minute to load from a network's disk."""


@dataclass(frozen=True, kw_only=True)
class Host:
    """Facts of a machine that need no measuring; a measurement holds for the host it was made on."""

    cpu: str
    """The CPU's model, as the system names it."""
    features: str
    """Its instructions for bfloat16, which another machine of the same model name may lack."""
    logical_cores: int
    usable_cores: int
    """Cores that this process may use: by its affinity and by the quota of its control group."""
    accelerators: str
    """GPUs that the system shows, and which of them CUDA may see; empty where the CPU is asked for."""
    torch: str
    """Version of torch."""
    wanted: str
    """`backend.runtime.device`, where it makes a difference."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Floating-point operations per second in products of matrices as training has them, by type."""

    float32: PositiveFloat
    bfloat16: PositiveFloat


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What a machine can do, measured."""

    host: Host
    device: str
    """What trains here: the GPU's name, else the CPU's."""
    gemm: Rates
    """Rates on that device; on a CPU with the best number of threads."""
    gemm_by_threads: Annotated[dict[PositiveInt, PositiveFloat], msgspec.Meta(min_length=1)]
    """float32 rate on the CPU, in floating-point operations per second, by the number of threads."""

    @property
    def threads(self) -> int:
        """The number of CPU threads with the best rate."""
        return max(self.gemm_by_threads, key=self.gemm_by_threads.__getitem__)


def host(wanted: str = "auto") -> Host | None:
    """Describe this machine without importing torch; None where torch is not installed."""
    from importlib import metadata

    try:
        torch = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return None
    # Asked for the CPU, a GPU more or less is no other machine.
    accelerators = "" if wanted == "cpu" else _accelerators()
    cpu, features = _cpu()
    return Host(
        cpu=cpu,
        features=features,
        logical_cores=os.cpu_count() or 1,
        usable_cores=usable_cores(),
        accelerators=accelerators,
        torch=torch,
        # Without a GPU auto is the CPU: one measurement serves both.
        wanted="cpu" if wanted == "auto" and not accelerators else wanted,
    )


def has_gpu(wanted: str = "auto") -> bool:
    """Say whether this machine has a GPU to compute on, without importing torch."""
    here = host(wanted)
    return here is not None and bool(here.accelerators)


def known(wanted: str = "auto") -> Machine | None:
    """Return what was measured before on a machine like this one; reads one small file.

    Raises `RequestError` where `RUNNER_MACHINE` names a file without a measurement.
    """
    pinned = os.environ.get("RUNNER_MACHINE")
    if pinned:
        return _pinned(Path(pinned))
    here = host(wanted)
    return _read(here) if here else None


@functools.cache
def measured(wanted: str = "auto") -> Machine | None:
    """Return what this machine can do, measured now where that is not known yet; looked up once per process.

    None where torch is not installed or the measuring fails; otherwise as `known`.
    """
    here = host(wanted)
    return known(wanted) or (_measured_once(here) if here else None)


def choose_dtype(machine: Machine | None) -> tuple[str, str]:
    """Return the type that the weights get, bfloat16 where it is `FASTER`, and the reason with the figures."""
    if machine is None:
        return "float32", "exact; how fast bfloat16 is here is not measured"
    float32, bfloat16 = machine.gemm.float32 / 1e9, machine.gemm.bfloat16 / 1e9
    # Measured, as no list of CPU names says which have matrix units: without them bfloat16 is six times
    # slower (docs/log.md).
    if bfloat16 >= FASTER * float32:
        return "bfloat16", f"bfloat16: {bfloat16:,.0f} GFLOP/s here, float32 {float32:,.0f}"
    return "float32", f"float32: {float32:,.0f} GFLOP/s here, bfloat16 {bfloat16:,.0f}"


def choose_threads(machine: Machine | None, environment: Mapping[str, str] = os.environ) -> tuple[int, str] | None:
    """Return the number of CPU threads and the reason, None to leave it to torch; `OMP_NUM_THREADS` goes first.

    Several processes on a machine share its cores.
    """
    asked = environment.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    count = distributed.this_rank(environment).local_world_size
    # Torchrun sets it to 1 by itself, which would leave cores idle.
    if asked.isdecimal() and int(asked) > (count > 1):
        return int(asked), "OMP_NUM_THREADS"
    if count > 1:
        cores = machine.threads if machine else usable_cores()
        return max(1, cores // count), f"{cores} cores for {count} processes"
    if machine is None:
        return None
    # Two counts are measured: all logical cores, and one per physical core.
    tried = " or ".join(map(str, sorted(machine.gemm_by_threads)))
    only = len(machine.gemm_by_threads) == 1
    return machine.threads, "the cores this process may use" if only else f"the fastest of {tried} here"


def _cpu() -> tuple[str, str]:
    """Return the CPU's model, and those of its features that bear on bfloat16."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
            lines = [line.partition(":") for line in takewhile(str.strip, file)]  # of the first core
    except OSError:
        lines = []
    fields = {name.strip(): value.strip() for name, _, value in lines}
    names = [fields[name] for name in ("model name", "CPU implementer", "CPU part") if name in fields]
    # x86 lists `flags`, Arm `Features`.
    flags = f"{fields.get('flags', '')} {fields.get('Features', '')}".split()
    features = sorted(flag for flag in flags if "bf16" in flag or "amx" in flag)
    return " ".join(names) or platform.processor() or platform.machine(), " ".join(features)


def _accelerators() -> str:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    # How CUDA's own GPUs are hidden from a process: it finds none then.
    if visible in ("", "-1"):
        return ""
    found = []
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        with suppress(OSError):
            found.append(path.read_text("utf-8").partition("Model:")[2].partition("\n")[0].strip())
    if not found:
        # Without NVIDIA's folder in /proc: a container's devices, AMD's (kfd), or WSL's (dxg).
        found = [path.name for name in ("nvidia[0-9]*", "kfd", "dxg") for path in sorted(Path("/dev").glob(name))]
    return ", ".join(found) + (f" (visible: {visible})" if found and visible else "")


def _path(here: Host) -> Path:
    key = sha256(msgspec.json.encode(here, order="deterministic")).hexdigest()
    return cache.user_folder() / "machines" / f"{key[:16]}.json"


def _read(here: Host) -> Machine | None:
    with suppress(OSError, msgspec.MsgspecError):
        found = msgspec.json.decode(_path(here).read_bytes(), type=Machine)
        return found if found.host == here else None
    return None


def _pinned(path: Path) -> Machine:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Machine)
    except (OSError, msgspec.MsgspecError) as error:
        raise RequestError(
            f"RUNNER_MACHINE: {path} holds no measurement ({error}); unset it, or name what "
            f"`python -m {MEASURE}` prints."
        ) from error


def _measured_once(here: Host) -> Machine | None:
    """Measure and keep it, unless another process does so at the same time."""
    from filelock import FileLock

    path = _path(here)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Two that measure at once would measure each other.
        with FileLock(path.with_suffix(".lock")):
            found = _read(here)
            if found is None and (found := _measure(here)):
                draft = path.with_suffix(f".{os.getpid()}")
                draft.write_bytes(msgspec.json.format(msgspec.json.encode(found)))
                draft.replace(path)
            return found
    except OSError:  # a cache that cannot be written is no reason not to plan
        return _measure(here)


def _measure(here: Host) -> Machine | None:
    if sys.stderr is not None:
        # Standard error, as `--cfg job` and the like are piped.
        sys.stderr.write("measuring this machine, once (about 5 s): backend.dtype and runtime.threads are auto …\n")
    try:
        # A process of its own: torch takes seconds to import, and a plan is to do without it.
        command = [sys.executable, "-m", MEASURE, here.wanted]
        outcome = subprocess.run(command, capture_output=True, check=False, timeout=MEASURE_SECONDS)
        found = msgspec.json.decode(outcome.stdout, type=Machine)
    except (OSError, subprocess.TimeoutExpired, msgspec.MsgspecError):
        return None
    return found if found.host == here else None
