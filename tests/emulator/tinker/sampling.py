"""What answers prompts at the emulated service: a base model, or the weights of a checkpoint."""

import itertools
from typing import TYPE_CHECKING

import numpy as np

from runner.record.samples import Sampling
from tests.emulator.messages import Answer, Refusal, Request
from tests.emulator.primitives.records import Model, Sampler, Session
from tests.emulator.primitives.trainer import Lesson, Trainer, of_chunks
from tests.emulator.tinker import wire

if TYPE_CHECKING:
    from tests.emulator.tinker.emulator import TinkerEmulator as Service


def create(service: "Service", request: Request) -> Answer:
    """Make something that answers prompts."""
    body = request.json()
    with service.lock:
        session = service.session(body["session_id"])
        made = sampler(service, session, body.get("model_path"), body.get("base_model"))
    return Answer(body={"type": "create_sampling_session", "sampling_session_id": made.id})


def sampler(service: "Service", session: Session, path: str | None, base: str | None) -> Sampler:
    weights = service.checkpoint(path).weights if path else None
    name = weights.base if weights else str(base)
    if name not in service.bases:
        raise Refusal(400, f"Model {name} is not supported.", "invalid_model")
    numbers = (f"{session.id}:sample:{number}" for number in itertools.count())
    found = Sampler(next(each for each in numbers if each not in service.samplers), name, weights)
    service.samplers[found.id] = found
    session.samplers.append(found.id)
    return found


def get(service: "Service", request: Request, id: str) -> Answer:
    """Describe a sampler."""
    if id not in service.samplers:
        raise Refusal(404, f"Sampler {id} not found.", "not_found")
    return Answer(body={"sampler_id": id, "base_model": service.samplers[id].base})


def asample(service: "Service", request: Request) -> Answer:
    """Answer a prompt, and score it where that is asked for."""
    body = request.json()
    prompt, images = of_chunks(body["prompt"]["chunks"])
    keys = body["sampling_params"]
    how = Sampling(
        max_new_tokens=keys["max_tokens"], per_prompt=body["num_samples"], temperature=keys.get("temperature", 1.0),
        top_p=keys.get("top_p", 1.0), seed=keys.get("seed") or 0,
    )  # fmt: skip
    with service.lock:
        found = service.samplers.get(body["sampling_session_id"])
        if found is None:
            raise Refusal(404, f"Sampler {body['sampling_session_id']} not found.", "not_found")
        session = service.session(found.id.partition(":")[0])
        trainer = _scratch(service, found)

        def work() -> Answer:
            lesson = Lesson(prompt, np.zeros(len(prompt) - 1, np.float32), images)
            scored = trainer.forward([lesson])[0] if body.get("prompt_logprobs") else None
            return wire.answers(trainer.sample(prompt, how, images), scored)

        future = service.begin("asample", Model(found.id, session, trainer, {}), work)
    names = [f"{future.id}:{number}" for number in range(how.per_prompt)]
    return Answer(body={"request_id": future.id, "sample_sequence_ids": names})


def _scratch(service: "Service", sampler: Sampler) -> Trainer:
    """Return the sampler's weights in a model of its own, which nothing trains."""
    if sampler.weights is None:
        return service.trainer(sampler.base, 1, 0)  # an adapter that has learned nothing changes nothing
    found = service.trainer(sampler.base, sampler.weights.rank, sampler.weights.seed)
    found.restore(sampler.weights, optimizer=False)
    return found
