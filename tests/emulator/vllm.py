"""`python -m tests.emulator.vllm serve FOLDER …`: as much of vLLM's server as serves an export, proves it, and samples
answers while a model learns.

The names of requests and fields are those of vLLM 0.32, which was run for that; answers come of transformers and peft,
token by token. `EMULATED_VLLM=base` answers by the base model whatever adapter is asked for, `dies` ends at the first
question. What it was asked is written next to the model's folder, `FOLDER.asked.jsonl`.
"""

import argparse
import json
import os
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.emulator.completion import completion
from tests.emulator.messages import Reply, Request
from tests.emulator.server import Server

VERSION = "0.32.0"


class Vllm:
    """A base model and its adapters, by name."""

    def __init__(self, folder: Path, name: str, dtype: str, fault: str) -> None:
        self._base = AutoModelForCausalLM.from_pretrained(folder, dtype=_dtype(folder, dtype)).eval()
        self._tokenizer = AutoTokenizer.from_pretrained(folder)
        self._name, self._adapters = name, dict[str, Path]()
        self._model: PeftModel | None = None
        self._fault, self._log = fault, folder.with_name(f"{folder.name}.asked.jsonl")
        self._one_at_a_time = Lock()  # which adapter answers is a state of the model

    def reply(self, request: Request) -> Reply:
        """Answer a request."""
        body = json.loads(request.body or b"{}")
        answers = {
            "/health": lambda: Reply(200, b""),
            "/tokenize": lambda: self._tokenize(body),
            "/v1/models": lambda: Reply(200, {"object": "list", "data": [{"id": self._name, "object": "model"}]}),
            "/v1/load_lora_adapter": lambda: self._load(body["lora_name"], body["lora_path"]),
            "/v1/unload_lora_adapter": lambda: self._unload(body["lora_name"]),
            "/v1/completions": lambda: self._complete(body),
            "/v1/chat/completions": lambda: self._chat(body),
            "/v1/responses": lambda: self._respond(body),
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

    def _tokenize(self, body: dict[str, Any]) -> Reply:
        return Reply(200, {"tokens": self._ids(body["messages"], body.get("add_generation_prompt", True))})

    def _chat(self, body: dict[str, Any]) -> Reply:
        text = self._answered(body, body["messages"], body.get("max_tokens"))
        return Reply(200, completion(body["model"], 0, "", text))

    def _respond(self, body: dict[str, Any]) -> Reply:
        asked = body["input"]
        messages = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
        text = self._answered(body, messages, body.get("max_output_tokens"))
        content = [{"type": "output_text", "text": text, "annotations": []}]
        message = {"id": "msg", "type": "message", "role": "assistant", "status": "completed", "content": content}
        return Reply(200, {"id": "resp", "object": "response", "model": body["model"], "output": [message]})

    def _answered(self, body: dict[str, Any], messages: list[Any], limit: int | None) -> str:
        """Return an answer to a conversation, by default as long as there is room."""
        asked = body | {"prompt": self._ids(messages, True), "max_tokens": limit or 64}
        choices: Any = self._complete(asked).body
        return str(choices["choices"][0]["text"])

    def _ids(self, messages: list[Any], answer_next: bool) -> list[int]:
        found = self._tokenizer.apply_chat_template(messages, add_generation_prompt=answer_next, return_dict=False)
        return list(found)

    @torch.no_grad()
    def _complete(self, body: dict[str, Any]) -> Reply:
        if self._fault == "dies":
            sys.stderr.write("EngineCore: out of memory\n")
            sys.stderr.flush()
            os._exit(1)
        name, many = body["model"], body.get("n", 1)
        if name not in (*self._adapters, self._name):
            return Reply(404, {"error": {"message": f"The model `{name}` does not exist."}})
        if not body.get("temperature", 1.0) and many > 1:
            return Reply(400, {"error": {"message": "n must be 1 when using greedy sampling."}})
        if self._model is not None and name in self._adapters:
            self._model.set_adapter(name)
        plain = self._model is not None and (name == self._name or self._fault == "base")
        prompts = [body["prompt"]] if isinstance(body["prompt"][0], int) else body["prompt"]
        with self._model.disable_adapter() if plain else nullcontext():  # type: ignore[union-attr]
            choices = [self._choice(prompt, body) for prompt in prompts for _ in range(many)]
        return Reply(200, {"choices": [{"index": number, **each} for number, each in enumerate(choices)]})

    def _choice(self, prompt: list[int], body: dict[str, Any]) -> dict[str, Any]:
        model, temperature, allowed = (
            self._model or self._base,
            body.get("temperature", 1.0),
            body.get("allowed_token_ids"),
        )
        ends = {*_several(self._base.generation_config.eos_token_id), self._tokenizer.eos_token_id}
        ends.update(body.get("stop_token_ids", ()))
        ids, logps = list(prompt), list[float]()
        while len(logps) < body["max_tokens"] and (not logps or ids[-1] not in ends):
            logits = model(torch.tensor([ids])).logits[0, -1].float()
            if allowed:
                logits[[each for each in range(len(logits)) if each not in allowed]] = -torch.inf
            scores = torch.log_softmax(logits / (temperature or 1.0), -1)
            token = int(torch.multinomial(scores.exp(), 1)) if temperature else int(scores.argmax())
            ids.append(token)
            logps.append(float(scores[token]))
        answer = ids[len(prompt) :]
        return {
            "token_ids": answer, "logprobs": {"token_logprobs": logps},
            "text": self._tokenizer.decode(answer, skip_special_tokens=True),
            "finish_reason": "stop" if answer[-1] in ends else "length",
            "prompt_logprobs": self._of_prompt(prompt) if "prompt_logprobs" in body else None,
        }  # fmt: skip

    def _of_prompt(self, prompt: list[int]) -> list[Any]:
        rows = (self._model or self._base)(torch.tensor([prompt])).logits[0, :-1].float().log_softmax(-1)
        return [None, *({str(id_): {"logprob": float(row[id_])}} for row, id_ in zip(rows, prompt[1:], strict=True))]


def _several(found: Any) -> Iterable[int]:
    return found if isinstance(found, list) else [found]


def _dtype(folder: Path, wanted: str) -> Any:
    """Return the type of weights as vLLM chooses it: 16 bits for those in 32, unless 32 are asked for."""
    kept = json.loads((folder / "config.json").read_bytes())["dtype"]
    return getattr(torch, wanted if wanted != "auto" else "bfloat16" if kept == "float32" else kept)


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--version", action="version", version=VERSION)
    parser.add_argument("verb", choices=["serve"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--served-model-name", required=True)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    given, _ = parser.parse_known_args()
    torch.manual_seed(given.seed)
    torch.set_num_threads(1)
    model = Vllm(given.folder, given.served_model_name, given.dtype, os.environ.get("EMULATED_VLLM", ""))
    Server(model, given.port)


if __name__ == "__main__":
    main()
