"""`models:/…`: a model logged or registered in MLflow, by the URI that MLflow shows."""

import os
from hashlib import sha256
from pathlib import Path

from runner import cache
from runner.errors import ModelError
from runner.models import model_reference
from runner.models.source import Source
from runner.record import layout


class Logged(Source):
    """Models logged or registered in MLflow."""

    scheme = "models"

    def identify(self, rest: str, offline: bool = False) -> str:
        """Return the digest of the logged weights, which have to be fetched for it unless they are here."""
        folder = self.cached(rest)
        if folder is None and offline:
            raise ModelError(f"model.source: models:{rest} is not on this machine, so a plan cannot know its digest.")
        return model_reference.demand(folder or self.fetch(rest), f"models:{rest}").digest

    def cached(self, rest: str) -> Path | None:
        """Return the folder if it was fetched before; registered names can move, logged models (`/m-…`) cannot."""
        folder = _folder(rest)
        # What an alias or a version's name means is asked for each time.
        return folder if rest.startswith("/m-") and (folder / layout.REFERENCE).exists() else None

    def fetch(self, rest: str) -> Path:
        """Download the model's artifacts from the tracking store and return the folder with its reference."""
        import mlflow
        from mlflow.exceptions import MlflowException

        folder = _folder(rest)
        folder.mkdir(parents=True, exist_ok=True)
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        try:
            # Where runs are tracked unless the request says otherwise (`tracking.uri`).
            uri = os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlflow.db"
            got = Path(mlflow.artifacts.download_artifacts(f"models:{rest}", dst_path=str(folder), tracking_uri=uri))
        except (MlflowException, OSError) as error:
            raise ModelError(f"model.source: MLflow gave no models:{rest}: {str(error).splitlines()[0]}") from error
        # MLflow puts a pyfunc's files into a folder of its own below.
        return next((path.parent for path in got.rglob(layout.REFERENCE)), got)


def _folder(rest: str) -> Path:
    return cache.user_folder() / "mlflow-models" / sha256(rest.encode()).hexdigest()[:16]


SOURCE = Logged()
