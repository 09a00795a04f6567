"""How many cores this process may use."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path


def usable_cores(root: Path = Path("/")) -> int:
    """Return the cores this process may use: by its affinity, and whole ones within its control groups' quotas."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # A thread more than the quota stops all of them at each barrier for the rest of the period.
    return max(1, min([allowed, *map(int, _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """Yield the cores' worth of time that each control group around this process allows, version 1 or 2."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        # Version 2 has one line without controllers, version 1 a line for each of them (cgroups(7)).
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / controllers
        group = top / path.lstrip("/")
        # In a container the path can be the outer system's: then only the top is here, and is the container's own.
        for folder in (group, *(each for each in group.parents if each.is_relative_to(top))):
            # The quota of any group above counts, too; both versions give microseconds of each period.
            for names in (["cpu.max"], ["cpu.cfs_quota_us", "cpu.cfs_period_us"]):
                with suppress(OSError, ValueError):
                    quota, period = " ".join((folder / name).read_text() for name in names).split()
                    if quota not in ("max", "-1"):
                        yield int(quota) / int(period)
