"""`engine=transformers`: `transformers serve`, which answers with the run's weights as they are."""

import sys
from importlib.util import find_spec
from pathlib import Path

from runner.errors import RequestError
from runner.serving.engines import Engine


class Transformers(Engine):
    """transformers' own server, for a few users at a time."""

    name = "transformers"
    form = "merged"

    def demand(self) -> None:
        """Raise `RequestError` where what it serves with is not installed."""
        missing = [name for name in ("fastapi", "uvicorn", "openai") if not find_spec(name)]
        if missing:
            raise RequestError(
                f"engine: transformers serves with {', '.join(missing)}, which is not installed; "
                "pip install 'transformers[serving]'."
            )

    def command(self, folder: Path, model: str, port: int) -> list[str]:
        """Return `transformers serve FOLDER`: all requests are answered by that model."""
        program = Path(sys.executable).with_name("transformers")
        return [str(program), "serve", str(folder.absolute()), "--host", "127.0.0.1", "--port", str(port)]


ENGINE = Transformers()
