"""`hf:ORG/NAME`, `hf:ORG/NAME@REVISION`, with `:SPLIT` or `:FILES` behind: a data set on the Hugging Face hub.

Its files are read as they are, by our own readers: the package datasets, which runs for seconds before it reads a row,
is not needed. Which files a split has is found as that package does: from `configs` in the head of README.md, else by
the split's name in the files' paths (https://huggingface.co/docs/hub/datasets-data-files-configuration).
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatch
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import msgspec

from runner import cache
from runner.data.quoting import shown
from runner.data.sources import Source
from runner.errors import DataError

_NAME = re.compile(r"hf:(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[^:]+))?(?::(?P<what>.+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_READ = re.compile(r"\.(?:jsonl|ndjson|json|csv|tsv|parquet)(?:\.gz|\.zst)?$")
_NOT_DATA = re.compile(r"(?:^|/)(?:\.|dataset_infos?\.json|dataset_dict\.json|state\.json)")
_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""How paths name a split, as the package datasets has it; any other split is named by itself."""


class _Wanted(NamedTuple):
    """A name in its parts; `what` is a split, or a pattern of files."""

    repo: str
    revision: str
    what: str

    def __str__(self) -> str:
        return f"hf:{self.repo}@{self.revision}:{self.what}"


class Hub(Source):
    """Data sets on the Hugging Face hub, in the hub's own cache."""

    schemes = ("hf",)

    def pinned(self, name: str) -> str:
        """Return the name with the commit that its revision means now; without the hub, with that of the last time."""
        from huggingface_hub import HfApi

        wanted = _parsed(name)
        if _COMMIT.fullmatch(wanted.revision):
            return str(wanted)
        seen = _noted(f"{wanted.repo}@{wanted.revision}")
        try:
            commit = HfApi().dataset_info(wanted.repo, revision=wanted.revision).sha or ""
        except Exception as error:  # the hub's errors, httpx's, and those of a malformed name
            if seen.is_file() and _is_unreachable(error):
                return str(wanted._replace(revision=seen.read_text("utf-8")))
            raise _refused(wanted, error) from None
        # For the day without a network: which commit the branch meant when it was last asked.
        seen.write_text(commit, "utf-8")
        return str(wanted._replace(revision=commit))

    def files(self, name: str) -> Sequence[tuple[str, Path]]:
        """Return the files of a split, or those of a pattern, which are downloaded once."""
        from huggingface_hub import hf_hub_download

        wanted = _parsed(self.pinned(name))
        # Noted, as a download that was broken off has left some of the files, which are not all.
        noted = _noted(str(wanted))
        try:
            if not noted.is_file():
                noted.write_bytes(msgspec.json.encode(_chosen(wanted)))
            paths = msgspec.json.decode(noted.read_bytes(), type=list[str])
            return [
                (
                    f"hf:{wanted.repo}/{path}",
                    Path(hf_hub_download(wanted.repo, path, repo_type="dataset", revision=wanted.revision)),
                )
                for path in paths
            ]
        except DataError:
            raise
        except Exception as error:
            raise _refused(wanted, error) from None


def _parsed(name: str) -> _Wanted:
    found = _NAME.fullmatch(name)
    if found is None:
        raise DataError(
            f"dataset: got '{shown(name, 200)}'; allowed: hf:ORG/NAME, then @REVISION and :SPLIT or :FILES, if wanted."
        )
    return _Wanted(found["repo"], found["revision"] or "main", found["what"] or "train")


def _noted(key: str) -> Path:
    """Return the file in the user's cache that keeps what the hub said of a name."""
    folder = cache.user_folder() / "data" / "hf"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / sha256(key.encode()).hexdigest()


def _is_unreachable(error: Exception) -> bool:
    """Say whether the hub did not answer at all; an answer that refuses is one."""
    return getattr(error, "response", None) is None


def _refused(wanted: _Wanted, error: Exception) -> DataError:
    # The hub's own first line says whether the name is wrong, or access is needed; it holds no token.
    said = shown((str(error).strip() or type(error).__name__).splitlines()[0], 300)
    where = f"hf:{wanted.repo}@{wanted.revision}"
    if _is_unreachable(error):
        return DataError(
            f"{where}: the hub was not reached ({said}), and it is not on this machine yet; check the network, and "
            "HF_ENDPOINT and HF_HUB_OFFLINE where they are set."
        )
    return DataError(f"{where}: the hub did not give it ({said}); check name, revision and access (HF_TOKEN).")


def _chosen(wanted: _Wanted) -> list[str]:
    """Return the paths of the files that are wanted, sorted. Raises `DataError` if there is none."""
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.constants import REPOCARD_NAME

    present = sorted(HfApi().list_repo_files(wanted.repo, repo_type="dataset", revision=wanted.revision))
    readable = [path for path in present if _READ.search(path) and not _NOT_DATA.search(path)]
    # No split has such a sign in its name, and no path of data is without one.
    if any(sign in wanted.what for sign in "./*?["):
        found = [path for path in readable if fnmatch(path, wanted.what)]
        splits: Sequence[str] = ()
    else:
        card = ""
        if REPOCARD_NAME in present:
            path = hf_hub_download(wanted.repo, REPOCARD_NAME, repo_type="dataset", revision=wanted.revision)
            card = Path(path).read_text("utf-8", "replace")
        by_split = _configured(wanted, card, readable) or _named(readable)
        found, splits = by_split.get(wanted.what, []), [*by_split]
    if not found:
        has = f"its splits are {', '.join(splits)}" if splits else f"it holds {shown(', '.join(readable), 300)}"
        raise DataError(
            f"hf:{wanted.repo}: has no file for '{wanted.what}' that is read here; {has or 'no data'}; name a split or "
            f"files, as hf:{wanted.repo}:train or hf:{wanted.repo}:data/*.jsonl."
        )
    return found


def _configured(wanted: _Wanted, card: str, readable: Sequence[str]) -> dict[str, list[str]]:
    """Return the files of each split that the head of README.md names; empty where it names none.

    Raises `DataError` where it names several configurations, none of which is the default.
    """
    import yaml

    head = re.match(r"---\s*\n(.*?)\n---", card, re.DOTALL)
    values = yaml.safe_load(head[1]) if head else None
    configs = [each for each in (values or {}).get("configs") or [] if each.get("data_files")]
    names = [each.get("config_name", "default") for each in configs]
    usual = [each for each, name in zip(configs, names, strict=True) if each.get("default") or name == "default"]
    if not configs:
        return {}
    if len(configs) > 1 and not usual:
        raise DataError(
            f"hf:{wanted.repo}: has several configurations ({shown(', '.join(names), 200)}); name the files of one, as "
            f"hf:{wanted.repo}:{next(iter(_patterns(configs[0]['data_files'])))[1]}."
        )
    found: dict[str, list[str]] = {}
    for split, pattern in _patterns((usual or configs)[0]["data_files"]):
        found.setdefault(split, []).extend(path for path in readable if fnmatch(path, pattern))
    return found


def _patterns(data_files: object) -> Iterator[tuple[str, str]]:
    """Yield split and pattern of each entry: a pattern, a list of them, or entries with `split` and `path`."""
    for entry in data_files if isinstance(data_files, list) else [data_files]:
        given = entry if isinstance(entry, Mapping) else {"path": entry}
        paths = given.get("path", [])
        for path in paths if isinstance(paths, list) else [paths]:
            yield str(given.get("split", "train")), str(path)


def _named(readable: Sequence[str]) -> dict[str, list[str]]:
    """Return the files of each split that paths name; all files are for training where no path names a split."""
    found: dict[str, list[str]] = {}
    for path in readable:
        for split, words in _WORDS.items():
            # As a whole word: `train-00000-of-00001.parquet` and `data/train/a.jsonl`, not `constraint.json`.
            if re.search(rf"(?<![a-z])(?:{'|'.join(words)})(?![a-z])", path.lower()):
                found.setdefault(split, []).append(path)
                break  # the first that fits, so that no file is in two splits
    return found or {"train": list(readable)}


SOURCE = Hub()
