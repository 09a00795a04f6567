"""What Hydra composes over: the defaults of all keys, and the folders in which it finds options and experiments."""

from collections.abc import Iterator
from dataclasses import asdict, is_dataclass
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import get_type_hints

from runner import backends, methods
from runner.request.keys import SECTIONS, RootKeys


def all_keys() -> dict[str, str]:
    """Return every key that some request can hold, and the choice it needs (`method=dpo`), empty if none."""
    keys = dict.fromkeys(_keys("", RootKeys), "")
    for section, owner in SECTIONS.items():
        keys |= dict.fromkeys(_keys(f"{section}.", owner), "")
    for name in methods.names():
        keys |= dict.fromkeys(_keys(f"{name}.", methods.load(name).hyperparameters), f"method={name}")
    for name in options(backends):
        needed = _keys("backend.", backends.keys(name))
        # Keys that every backend has belong to none of them.
        keys |= {key: f"backend={name}" for key in needed if key not in keys}
    return keys


def _keys(prefix: str, owner: type) -> Iterator[str]:
    for key, hint in get_type_hints(owner, include_extras=True).items():
        nested = is_dataclass(hint) and isinstance(hint, type)
        yield from _keys(f"{prefix}{key}.", hint) if nested else [f"{prefix}{key}"]


def options(package: ModuleType) -> list[str]:
    """Return the names of a package's modules: the methods or backends that exist."""
    return [module.name for module in iter_modules(package.__path__)]


def register() -> None:
    """Give Hydra the defaults to compose over (`base`, and `keys_of_…` for each method and backend) and our folders.

    These are no groups, as `--help` lists every group as something to choose from.
    """
    from hydra.core.config_store import ConfigStore
    from omegaconf import OmegaConf

    store = ConfigStore.instance()
    # Hydra copies its sources, this one with all its values, for every group that `--help` lists: 1 s of a processor.
    # What it protects them from happens to the list of sources only, and `load` copies what it hands out.
    ConfigStore.__deepcopy__ = lambda self, _: self  # type: ignore[attr-defined]
    sections = {name: asdict(section()) for name, section in SECTIONS.items()}
    # As plain dictionaries: structured configs would check types in Hydra's words, check.py does in ours.
    store.store(name="base", node=asdict(RootKeys()) | sections)
    for name in methods.names():
        keys = {name: asdict(methods.load(name).hyperparameters())}
        store.store(name=f"keys_of_method_{name}", node=keys, package="_global_")
    for name in options(backends):
        keys = {"backend": asdict(backends.keys(name)(name=name))}
        store.store(name=f"keys_of_backend_{name}", node=keys, package="_global_")
    # A resolver, as `hydra.searchpath` in YAML can name no folder that is known only at run time. replace:
    # tests register twice.
    OmegaConf.register_new_resolver("runner.searchpath", _search_path, replace=True)


def home() -> Path:
    """Return the folder with `conf/` and `experiments/`: the package once installed, else the checkout."""
    # The wheel carries both folders within the package; a checkout has them at its root (pyproject.toml).
    package = Path(__file__).parents[1]
    return package if (package / "conf").is_dir() else package.parent


def _search_path() -> list[str]:
    """List further folders with options: a user's own `conf/` and `experiments/` here, then our experiments."""
    here = Path.cwd()
    # Before our experiments, so that of two with one name the user's is taken.
    own = [path for path in (here / "conf", here) if path.is_dir() and path not in (home(), home() / "conf")]
    return [f"file://{path}" for path in (*own, home())]
