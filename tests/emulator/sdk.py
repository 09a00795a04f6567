"""The real SDKs, bound to an emulator by environment variables only: how the emulator itself is tested."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.conftest import pair_row
from tests.emulator.emulator import SUBSCRIPTION, Emulator


class Client:
    """A client process of the hosted service, retrying nothing by itself unless asked through `retrying`."""

    def __init__(self, cloud: Emulator, opened: ExitStack) -> None:
        self.cloud = cloud
        self._opened = opened
        self.sign_in()

    def sign_in(self) -> None:
        """Begin with a fresh identity: the one before has kept its token and continues to show it."""
        from azure.ai.projects import AIProjectClient
        from azure.identity import DefaultAzureCredential

        self.credential = self._opened.enter_context(DefaultAzureCredential())
        project = self._opened.enter_context(AIProjectClient(endpoint=self.cloud.endpoint, credential=self.credential))
        self.openai = self._opened.enter_context(project.get_openai_client(max_retries=0))
        self.retrying = self.openai.with_options(max_retries=2)

    @property
    def jobs(self) -> Any:
        """The SDK's operations on jobs."""
        return self.openai.fine_tuning.jobs

    def deployments(self) -> Any:
        """Return the SDK's operations on deployments."""
        from azure.mgmt.cognitiveservices import CognitiveServicesManagementClient

        made = CognitiveServicesManagementClient(
            self.credential,
            SUBSCRIPTION,
            base_url=self.cloud.base,
            credential_scopes=["https://management.azure.com/.default"],
            retry_total=0,
        )
        return self._opened.enter_context(made).deployments

    def upload(self, rows: list[dict[str, Any]] | bytes) -> Any:
        """Upload rows and let time pass until they are processed."""
        content = rows if isinstance(rows, bytes) else "".join(json.dumps(row) + "\n" for row in rows).encode()
        made = self.openai.files.create(file=("rows.jsonl", content), purpose="fine-tune")
        self.cloud.advance(60)
        return self.openai.files.retrieve(made.id)

    def order(self, method: str = "dpo", rows: int = 12, hyperparameters: Any = None, **more: Any) -> Any:
        """Create a job, on rows that suit the method unless a file is given."""
        make = pair_row if method == "dpo" else chat_row
        settings = {} if hyperparameters is None else {method: {"hyperparameters": hyperparameters}}
        order: dict[str, Any] = {"model": "gpt-4.1-mini", "method": {"type": method, **settings}} | more
        if "training_file" not in order:
            order["training_file"] = self.upload([make(number) for number in range(rows)]).id
        return self.jobs.create(**order)

    def ended(self, job: Any) -> Any:
        """Let time pass until a job has ended."""
        self.cloud.advance(60)
        return self.jobs.retrieve(job.id)


def chat_row(number: int) -> dict[str, Any]:
    """Return a conversation; every number gives another one."""
    question, answer = f"What is {number} and one?", str(number + 1)
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


@contextmanager
def connected(monkeypatch: pytest.MonkeyPatch, style: str = "strict", **options: Any) -> Iterator[Client]:
    """Give a client of an emulator of its own; at the end nothing may have broken the contract."""
    with Emulator(style=style, **options) as cloud, ExitStack() as opened:
        for name, value in cloud.environment().items():
            monkeypatch.setenv(name, value)
        yield Client(cloud, opened)
    assert cloud.violations == []
