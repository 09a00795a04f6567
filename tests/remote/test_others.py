"""A remote engine next to others: the unmodified packages, a second driver, and an engine that is not bit-stable."""

import asyncio
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("tinker")
pytest.importorskip("azure.ai.finetuningsessions")

from runner.errors import RunnerError
from runner.remote.engine import opening
from runner.remote.engine.doubt import InDoubt
from runner.remote.engine.remote_engine import RemoteEngine
from runner.training.engine import Adam
from runner.training.examples import Example
from runner.training.schedule import batch
from tests import waiting
from tests.emulator.faults import Fault
from tests.emulator.sessions import package
from tests.emulator.tinker.emulator import KEY
from tests.emulator.tinker.package import close_connections
from tests.remote import driven
from tests.remote.driven import WIRES
from tests.training.driving import Listed
from tests.training.test_by_primitives import ROWS, examples

pytestmark = pytest.mark.slow

KILLED, UNCLIPPED = WIRES["tinker"].killed, WIRES["sessions"].killed
STEPS = KILLED.num_steps
PAIRS = examples(KILLED, ROWS[:6])


@pytest.fixture(params=WIRES)
def service(request: pytest.FixtureRequest, tiny_model: Path) -> Iterator[driven.Rehearsal]:
    with WIRES[request.param].emulator({driven.BASE: tiny_model}) as found:
        yield driven.Rehearsal(request.param, found)
        assert found.violations == []


def only(wire: str) -> Any:
    return pytest.mark.parametrize("service", [wire], indirect=True)


def chosen(step: int) -> list[Example]:
    """Return the pairs of a step of the plan."""
    return [PAIRS[number] for number in batch(len(PAIRS), KILLED.hyperparameters.batch_size, KILLED.seed, step)]


def sequences(pairs: list[Example]) -> list[tuple[list[int], list[bool]]]:
    """Return each answer with its prompt, and which of the answer's tokens are learned."""
    return [
        ([*example.tokens.prompt, *answer], list(mask))
        for example in pairs
        for answer, mask in zip(example.tokens.answers, example.tokens.learned, strict=True)
    ]


def dpo(pairs: list[Example], logps: list[torch.Tensor]) -> torch.Tensor:
    """Return DPO's loss as a program writes it, given the log-probabilities of whole sequences."""
    masks = [mask for _, mask in sequences(pairs)]
    sums = torch.stack([each[-len(mask) :][torch.tensor(mask)].sum() for each, mask in zip(logps, masks, strict=True)])
    reference = torch.tensor([example.reference_logps for example in pairs])
    ratios = sums.view(len(pairs), 2) - reference
    return -torch.nn.functional.logsigmoid(KILLED.hyperparameters.beta * (ratios[:, 0] - ratios[:, 1])).mean()


def by_tinkers_package(url: str) -> None:
    """Train by DPO as the package's documentation does it, with the batches and the rates of the plan."""
    import tinker
    from tinker import types

    client = tinker.ServiceClient(base_url=url, api_key=KEY)
    training = client.create_lora_training_client(driven.BASE, rank=4, seed=driven.SEED, train_unembed=False)
    for step in range(STEPS):
        pairs = chosen(step)
        data = [
            types.Datum(
                model_input=types.ModelInput.from_ints(ids[:-1]),
                loss_fn_inputs={"target_tokens": ids[1:], "weights": [1.0] * (len(ids) - 1)},
            )
            for ids, _ in sequences(pairs)
        ]

        def loss(
            _: Any, logps: list[torch.Tensor], pairs: list[Example] = pairs
        ) -> tuple[torch.Tensor, dict[str, float]]:
            return dpo(pairs, logps), {}

        adam = KILLED.adam(step)
        assert adam.max_grad_norm
        training.forward_backward_custom(data, loss).result()
        training.optim_step(
            types.AdamParams(
                learning_rate=adam.learning_rate, beta1=adam.beta1, beta2=adam.beta2, eps=adam.eps,
                weight_decay=adam.weight_decay, grad_clip_norm=adam.max_grad_norm,
            )
        ).result()  # fmt: skip
    training.save_state(f"step-{STEPS:08d}").result()
    client.close("success").result()


def by_foundrys_package(url: str) -> None:
    """Train by DPO as Microsoft's recipe does it: forward, the gradient here, forward_backward with weights."""
    from azure.ai.finetuningsessions import FineTuningSession
    from azure.ai.finetuningsessions.models import LoRAConfig

    with package.client(url) as client:
        lora = LoRAConfig(rank=4, alpha=32.0, seed=driven.SEED)
        session = FineTuningSession.create(client, base_model=driven.BASE, lora_config=lora)
        for step in range(STEPS):
            pairs = chosen(step)
            found = session.forward([package.datum(ids) for ids, _ in sequences(pairs)])
            outputs = [each["logprobs"]["data"] for each in found.loss_fn_outputs]  # type: ignore[attr-defined]
            logps = [torch.tensor(each, dtype=torch.float64, requires_grad=True) for each in outputs]
            dpo(pairs, logps).backward()  # type: ignore[no-untyped-call]
            weights = [(-each.grad).tolist() for each in logps if each.grad is not None]
            given = zip(sequences(pairs), weights, strict=True)
            session.forward_backward([package.datum(ids, own) for (ids, _), own in given])
            session.optim_step(package.adam(UNCLIPPED.adam(step)))
        session.save_weights(f"step-{STEPS:08d}")
        session.close()


def test_a_program_by_the_vendors_package_gives_the_same_model(service: driven.Rehearsal, tmp_path: Path) -> None:
    emulator = service.emulator
    driven.carry_out(service.wire, emulator.url, tmp_path)
    ours = driven.final(emulator, STEPS).state.weights
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if service.wire == "tinker":
            by_tinkers_package(emulator.url)
            close_connections()
        else:
            by_foundrys_package(emulator.url)
    theirs = driven.final(emulator, STEPS).state.weights
    assert len(emulator.models) == 2
    assert emulator.live == []
    for name, tensor in ours.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=0, atol=1e-6)


@only("sessions")
def test_a_warning_microsofts_asynchronous_client_steps_twice_where_an_answer_is_lost_and_ours_once(
    service: driven.Rehearsal, tmp_path: Path
) -> None:
    emulator = service.emulator

    async def by_the_package() -> Any:
        async with package.asynchronous_client(emulator.url) as client:
            session = await client.create_session(base_model=driven.BASE, lora_config=package.LORA)
            await client.forward_backward(session, [package.datum([5, 6, 7, 8])])
            emulator.inject(Fault("POST optim_step", "reset_after"))
            found = await client.optim_step(session, package.adam(Adam(learning_rate=1e-3)))
            await client.close_session(session)
            return session, found.step_count

    session, count = asyncio.run(by_the_package())
    assert emulator.done[session, "optim_step"] == emulator.steps(session) == count == 2  # and reports success
    engine = opened(service, tmp_path)
    engine.forward_backward_custom(Listed(PAIRS[:2]), UNCLIPPED.loss)
    emulator.inject(Fault("POST optim_step", "reset_after"))
    engine.optim_step(Adam(learning_rate=1e-3))
    assert emulator.steps(engine.driver.handle.model) == 1
    ended(engine)


def opened(service: driven.Rehearsal, folder: Path) -> RemoteEngine:
    found = service.driver(folder)
    driven.attach(service.wire, found, PAIRS)
    return driven.engine(service.wire, found)


def ended(engine: RemoteEngine) -> None:
    opening.close(engine.driver, "success")
    engine.driver.service.disconnect()


def test_a_second_driver_on_the_same_session_is_noticed(service: driven.Rehearsal, tmp_path: Path) -> None:
    rows, adam = Listed(examples(KILLED, ROWS[:2])), Adam(learning_rate=0.1)
    engine = opened(service, tmp_path)
    engine.forward_backward_custom(rows, KILLED.loss)
    # It has the same numbers to give, which the service has seen with another body; or its steps are counted.
    ledger = tmp_path / "second" / "ledger.jsonl"
    ledger.parent.mkdir()
    ledger.write_bytes((tmp_path / "ledger.jsonl").read_bytes())
    second = driven.engine(service.wire, service.driver(ledger.parent))
    second.driver.ledger.entries.clear()
    second.optim_step(adam)
    with pytest.raises(RunnerError, match="another driver works on it"):
        engine.optim_step(Adam(learning_rate=0.2))
    second.driver.service.disconnect()
    ended(engine)


def test_weights_that_change_between_two_passes_are_noticed(service: driven.Rehearsal, tmp_path: Path) -> None:
    rows = Listed(examples(KILLED, ROWS[:2]))
    engine = opened(service, tmp_path)
    forward = engine.forward

    def disturbed(given: Any) -> Any:
        found = forward(given)
        trainer = service.emulator.models[engine.driver.handle.model].trainer
        with torch.no_grad():
            for tensor in trainer.engine.learner.weights.values():
                tensor.add_(0.5)
        return found

    engine.forward = disturbed  # type: ignore[method-assign]
    with pytest.raises(RunnerError, match="its weights have changed between two requests"):
        engine.forward_backward_custom(rows, KILLED.loss)()
    ended(engine)


@only("tinker")
def test_a_step_is_sent_before_the_gradient_is_computed_and_neither_delays_the_next_rows(
    service: driven.Rehearsal, tmp_path: Path
) -> None:
    rows = Listed(examples(KILLED, ROWS[:2]))
    engine = opened(service, tmp_path)
    trainer: Any = service.emulator.models[engine.driver.handle.model].trainer
    compute, sent = (
        trainer.forward_backward,
        lambda: [each.path.rpartition("/")[2] for each in service.emulator.requests],
    )

    def waiting_for_the_next(lessons: Any) -> Any:
        waiting.until(lambda: sent().count("forward_backward") == 3 + 4, "rows by the next weights")
        assert sent().count("optim_step") == 1
        return compute(lessons)

    trainer.forward_backward = waiting_for_the_next
    before = engine.forward([example.tokens for example in rows]).logps
    values = engine.forward_backward_custom(rows, KILLED.loss)
    taken = engine.optim_step(Adam(learning_rate=1e-2))
    after = engine.forward([example.tokens for example in rows]).logps
    assert values()["loss"] > 0
    assert taken()["grad_norm"] > 0
    assert abs(after - before).max() > 1e-4  # by the weights after the step
    assert service.emulator.steps(engine.driver.handle.model) == 1
    ended(engine)


def test_where_noise_hides_a_step_a_lost_answer_leads_back_to_the_checkpoint(
    service: driven.Rehearsal, tmp_path: Path
) -> None:
    service.emulator.dedupes, service.emulator.noise = False, 0.01
    engine = opened(service, tmp_path)
    assert engine.driver.ledger.opened is not None
    assert engine.driver.ledger.opened.noise > 0.001
    assert not engine.driver.ledger.opened.dedupes
    engine.forward_backward_custom(Listed(examples(KILLED, ROWS[:2])), KILLED.loss)
    service.emulator.inject(Fault("POST optim_step", "reset_after"))
    with pytest.raises(InDoubt, match="no more than the engine's noise"):
        engine.optim_step(Adam(learning_rate=1e-6))
    ended(engine)
    assert service.emulator.live == []
