"""What any hosted service shares knows no service in particular."""

import subprocess
import sys
from pathlib import Path

import runner.hosted

NAMES = sorted(path.stem for path in Path(runner.hosted.__file__).parent.glob("*.py") if path.stem != "__init__")


def test_no_module_of_hosted_imports_azure() -> None:
    imports = "; ".join(f"import runner.hosted.{name}" for name in NAMES)
    program = f"{imports}; import sys; print([name for name in sys.modules if name.partition('.')[0] == 'azure'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
