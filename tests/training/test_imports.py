"""The loop knows no engine: it is imported without torch, and without any backend."""

import json
import subprocess
import sys

FOREIGN = """
import importlib, json, pkgutil, sys
from runner import training
for module in pkgutil.iter_modules(training.__path__):
    importlib.import_module(f"runner.training.{module.name}")
print(json.dumps(sorted(sys.modules)))
"""


def test_the_loop_loads_neither_torch_nor_a_backend() -> None:
    done = subprocess.run([sys.executable, "-c", FOREIGN], capture_output=True, text=True, check=True, timeout=120)
    loaded = json.loads(done.stdout)
    assert "runner.training.loop" in loaded
    assert [name for name in loaded if name in ("torch", "transformers") or name.startswith("runner.backends")] == []
