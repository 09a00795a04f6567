"""MLflow stores without runs, ready-made: creating the tables of one takes 1.6 s of processor time."""

import shutil
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from tests import warm


def put_empty(folder: Path) -> None:
    """Put an `mlflow.db` without runs into a folder, as MLflow makes it when it is first asked."""
    shutil.copy(_made(), folder / "mlflow.db")


@cache
def _made() -> Path:
    path = Path(_folder.name) / "mlflow.db"
    create = "import sys; from mlflow import MlflowClient; MlflowClient(sys.argv[1]).search_experiments()"
    warm.run([sys.executable, "-c", create, f"sqlite:///{path}"], cwd=path.parent, check=True)
    return path


_folder = TemporaryDirectory(prefix="runner-store-")
