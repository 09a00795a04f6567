"""The server for agents, asked over stdio by the official SDK's own client: real plans, a real run, its report."""

import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from runner.errors import RequestError
from runner.mcp import requested, runs
from runner.record import layout
from tests.compare import records
from tests.conftest import pair_row

pytest.importorskip("mcp")
pytestmark = pytest.mark.slow
Ask = Callable[..., Coroutine[Any, Any, Any]]

SECONDS = 180
"""The longest that a small run may take on a busy machine."""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    rows = "".join(json.dumps(pair_row(number)) + "\n" for number in range(12))
    (tmp_path / "pairs.jsonl").write_text(rows, "utf-8")
    return tmp_path


@asynccontextmanager
async def connected(folder: Path) -> AsyncIterator[Ask]:
    """Lend what calls a tool of a server that was started in a folder: its result, or its error as an exception."""
    from mcp import Client, StdioServerParameters

    variables = os.environ | {"PYTHONWARNINGS": "ignore", "OMP_NUM_THREADS": "1"}
    how = StdioServerParameters(command=sys.executable, args=["-m", "runner.mcp"], cwd=folder, env=variables)
    async with Client(how, read_timeout_seconds=SECONDS) as client:

        async def ask(tool: str, **arguments: object) -> Any:
            if tool == "list_tools":
                return (await client.list_tools()).tools
            found = await client.call_tool(tool, arguments)
            if found.is_error:
                raise RequestError(found.content[0].text)  # type: ignore[union-attr]
            content = found.structured_content
            return content["result"] if content is not None and list(content) == ["result"] else content

        yield ask


def small(model: Path, *more: str) -> list[str]:
    return [
        f"model.source=path:{model}", "dataset=files", "dataset.train=pairs.jsonl", "dataset.validation_fraction=0.25",
        "dpo.n_epochs=1", "evaluation.samples=1", "evaluation.max_new_tokens=4", "tracking=none", *more,
    ]  # fmt: skip


def test_an_agent_plans_runs_follows_compares_and_reads(tiny_model: Path, here: Path) -> None:
    async def talk() -> None:
        async with connected(here) as ask:
            tools = {tool.name: tool for tool in await ask("list_tools")}
            assert set(tools) == {"plan", "run", "status", "compare", "read_report"}
            assert {name for name, tool in tools.items() if tool.annotations.read_only_hint} == set(tools) - {"run"}

            planned = await ask("plan", overrides=small(tiny_model))
            assert planned["state"] == "to do"
            assert planned["dollars"] == 0
            assert sum(planned["rows"].values()) == 12
            assert planned["reasons"]["dpo.batch_size"]
            assert await ask("run", overrides=small(tiny_model)) == planned, "a run is dry by default"
            assert list(here.glob("runs/*")) == [], "what is dry leaves nothing behind"

            begun = await ask("run", overrides=small(tiny_model), dry=False)
            assert (begun["run"], begun["state"]) == (planned["run"], "running")
            again = await ask("run", overrides=small(tiny_model), dry=False)
            assert (again["run"], again["state"]) == (planned["run"], "running"), "it is not started twice"
            ended = await until_ended(ask, begun["run"])
            assert (ended["state"], ended["model"]) == ("finished", f"{begun['run']}/model")
            assert {"train", "save"} <= set(ended["done"])
            assert [each["run"] for each in await ask("status")] == [begun["run"]]
            assert f"dpo on {planned['rows']['train']} rows" in await ask("read_report", run=begun["run"])
            assert (await ask("run", overrides=small(tiny_model), dry=False))["state"] == "finished"

            scores = {"first": {"right": [0.0] * 8 + [1.0] * 4}, "second": {"right": [1.0] * 11 + [0.0]}}
            records.write_evaluation(here / "runs" / "evaluations" / "both", scores)
            compared = await ask("compare", runs=["both"], metric=["eval/right"])
            assert compared["sentences"][0].startswith("model=second beats model=first: right")
            assert compared["differences"][0]["low"] > 0

    anyio.run(talk)


async def until_ended(ask: Ask, run: str) -> dict[str, Any]:
    until = time.monotonic() + SECONDS
    while (found := (await ask("status", run=run))[0])["state"] == "running" and time.monotonic() < until:
        await anyio.sleep(0.3)
    return dict(found)


REFUSED = [
    (["dataset.trian=x"], "dataset.trian: no such key; did you mean dataset=files dataset.train?"),
    (["dataset=files", "dataset.train=absent.jsonl"], "absent.jsonl: no such file"),
    (["hydra.run.dir=/"], "overrides: hydra.run.dir is not set here"),
    (["hydra/launcher=processes"], "overrides: hydra/launcher is not set here"),
    (["--multirun"], "overrides: got '--multirun'; each is KEY=VALUE"),
    (["max_price=1000000"], "overrides: max_price is not set here"),
    (["name=${oc.env:HOME}"], "overrides: name: interpolations are not taken here"),
    (["backend.trust_remote_code=true"], "backend.trust_remote_code: lets a model's own code run"),
    (["tracking.uri=postgresql://me:hidden@db/x"], "tracking.uri: a secret is never typed"),
]


HOSTED = ["backend=foundry", "dpo.n_epochs=2", "model.source=hosted:gpt-4.1-mini", "tracking=none"]


def test_what_an_agent_may_not_ask_for_is_refused_and_a_hosted_run_needs_a_limit_that_it_keeps(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_AI_PROJECT_ENDPOINT", "http://127.0.0.1:9/api/projects/none")

    async def talk() -> None:
        async with connected(here) as ask:
            for overrides, sentence in REFUSED:
                for tool in ("plan", "run"):
                    with pytest.raises(RequestError) as refused:
                        await ask(tool, overrides=overrides)
                    assert sentence in str(refused.value)
                    assert "hidden" not in str(refused.value)
            with pytest.raises(RequestError, match="run absent: not found"):
                await ask("status", run="absent")
            planned = await ask("run", overrides=HOSTED)
            assert planned["dollars"] > 0
            with pytest.raises(RequestError, match=r"max_price: missing; this run takes about \$\d"):
                await ask("run", overrides=HOSTED, dry=False)
            with pytest.raises(RequestError, match=r"max_price: got 0\.01, but this run takes about \$\d"):
                await ask("run", overrides=HOSTED, dry=False, max_price=0.01)
            with pytest.raises(RequestError, match="max_price: got -1; allowed: a number ≥ 0"):
                await ask("run", overrides=HOSTED, dry=False, max_price=-1)

    anyio.run(talk)
    assert not (here / "runs").exists()


def test_a_run_that_never_began_is_reported_as_failed_with_its_sentence(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)
    folder = Path("runs/none-12345678")
    runs.start(folder, ["dataset.trian=x"], None)
    until = time.monotonic() + SECONDS
    while runs.is_running(folder) and time.monotonic() < until:
        time.sleep(0.1)
    found = runs.status(folder)
    assert found.state == "failed"
    assert "dataset.trian: no such key" in found.message


def test_a_run_of_another_process_is_seen_as_running_until_that_process_is_gone(here: Path) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(here)], stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    assert runs.is_running(here)
    holder.kill()
    holder.communicate()
    assert (here / layout.LOCK).exists()
    assert not runs.is_running(here)


HOLDS = """
import sys
from pathlib import Path
from runner.execution import execute
with execute.alone(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize("override", ["dpo.beta=0.05", "+experiments=three_epochs", "evaluation.graders=[length]"])
def test_usual_overrides_are_harmless(override: str) -> None:
    requested._require_harmless(override)
