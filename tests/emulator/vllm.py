"""`python -m tests.emulator.vllm serve FOLDER …`: as much of vLLM's server as samples answers while a model learns.

The names of requests and fields are those of vLLM 0.32, which was run for that; answers come of transformers and peft,
token by token. `EMULATED_VLLM=base` answers by the base model whatever adapter is asked for, `dies` ends at the first
question. What it was asked is written next to the model, `asked.jsonl`.
"""

import argparse
import json
import os
import sys
from contextlib import nullcontext
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tests.emulator.messages import Reply, Request
from tests.emulator.server import Server


class Vllm:
    """A base model and its adapters, by name."""

    def __init__(self, folder: Path, fault: str) -> None:
        self._base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        self._adapters: dict[str, Path] = {}
        self._model: PeftModel | None = None
        self._fault, self._log = fault, folder / "asked.jsonl"
        self._one_at_a_time = Lock()  # which adapter answers is a state of the model

    def reply(self, request: Request) -> Reply:
        """Answer a request."""
        body = json.loads(request.body or b"{}")
        answers = {
            "/health": lambda: Reply(200, b""),
            "/v1/load_lora_adapter": lambda: self._load(body["lora_name"], body["lora_path"]),
            "/v1/unload_lora_adapter": lambda: self._unload(body["lora_name"]),
            "/v1/completions": lambda: self._complete(body),
        }
        with self._one_at_a_time, self._log.open("a") as log:
            log.write(json.dumps({"path": request.path, **body}) + "\n")
            return answers[request.path]()

    def _load(self, name: str, path: str) -> Reply:
        if self._model is None:
            self._model = PeftModel.from_pretrained(self._base, path, adapter_name=name)
        else:
            self._model.load_adapter(path, adapter_name=name)
        self._adapters[name] = Path(path)
        return Reply(200, f"Success: LoRA adapter '{name}' added successfully.".encode())

    def _unload(self, name: str) -> Reply:
        assert self._model is not None
        self._adapters.pop(name)
        self._model.delete_adapter(name)
        return Reply(200, b"")

    @torch.no_grad()
    def _complete(self, body: dict[str, Any]) -> Reply:
        if self._fault == "dies":
            sys.stderr.write("EngineCore: out of memory\n")
            sys.stderr.flush()
            os._exit(1)
        if body["model"] not in self._adapters:
            return Reply(404, {"error": {"message": f"The model `{body['model']}` does not exist."}})
        if not body["temperature"] and body["n"] > 1:
            return Reply(400, {"error": {"message": "n must be 1 when using greedy sampling."}})
        assert self._model is not None
        self._model.set_adapter(body["model"])
        with self._model.disable_adapter() if self._fault == "base" else nullcontext():
            return Reply(200, {"choices": [self._choice(number, body) for number in range(body["n"])]})

    def _choice(self, number: int, body: dict[str, Any]) -> dict[str, Any]:
        ids, logps = list(body["prompt"]), list[float]()
        while len(logps) < body["max_tokens"] and (not logps or ids[-1] not in body["stop_token_ids"]):
            logits = self._model(torch.tensor([ids])).logits[0, -1].float()  # type: ignore[misc]
            scores = torch.log_softmax(logits / (body["temperature"] or 1.0), -1)
            token = int(torch.multinomial(scores.exp(), 1)) if body["temperature"] else int(scores.argmax())
            ids.append(token)
            logps.append(float(scores[token]))
        answer = ids[len(body["prompt"]) :]
        return {"index": number, "token_ids": answer, "logprobs": {"token_logprobs": logps}, "text": ""}


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("verb", choices=["serve"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    given, _ = parser.parse_known_args()
    torch.manual_seed(given.seed)
    torch.set_num_threads(1)
    Server(Vllm(given.folder, os.environ.get("EMULATED_VLLM", "")), given.port)


if __name__ == "__main__":
    main()
