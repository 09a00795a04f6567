"""A remote engine beside others: the unmodified package, a second driver, and an engine that is not bit-stable."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("tinker")

from runner.errors import RunnerError
from runner.remote.engine import opening
from runner.remote.engine.doubt import InDoubt
from runner.remote.engine.remote_engine import Limits, RemoteEngine
from runner.training.engine import Adam
from runner.training.examples import Example
from runner.training.schedule import batch
from tests.emulator.faults import Fault
from tests.emulator.tinker import TinkerEmulator
from tests.emulator.tinker.emulator import KEY
from tests.emulator.tinker.package import close_connections
from tests.remote import driven
from tests.remote.driven import KILLED
from tests.training.driving import Listed
from tests.training.test_by_primitives import ROWS, examples

pytestmark = pytest.mark.slow

STEPS = KILLED.num_steps


@pytest.fixture
def service(tiny_model: Path) -> Iterator[TinkerEmulator]:
    with TinkerEmulator({driven.BASE: tiny_model}) as found:
        yield found
        assert found.violations == []


def by_the_package(url: str) -> None:
    """Train by DPO as the package's documentation does it, with the batches and the rates of the plan."""
    import tinker
    from tinker import types

    rows = examples(KILLED, ROWS[:6])
    client = tinker.ServiceClient(base_url=url, api_key=KEY)
    training = client.create_lora_training_client(driven.BASE, rank=4, seed=driven.SEED, train_unembed=False)
    for step in range(STEPS):
        chosen = [rows[number] for number in batch(len(rows), KILLED.hyperparameters.batch_size, KILLED.seed, step)]
        learned = [list(mask) for example in chosen for mask in example.tokens.learned]
        data = [
            types.Datum(
                model_input=types.ModelInput.from_ints(ids[:-1]),
                loss_fn_inputs={"target_tokens": ids[1:], "weights": [1.0] * (len(ids) - 1)},
            )
            for example in chosen
            for ids in ([*example.tokens.prompt, *answer] for answer in example.tokens.answers)
        ]

        def loss(
            _: Any, logps: list[torch.Tensor], chosen: list[Example] = chosen, learned: list[list[bool]] = learned
        ) -> tuple[torch.Tensor, dict[str, float]]:
            answers = [each[-len(mask) :] for each, mask in zip(logps, learned, strict=True)]
            sums = torch.stack([each[torch.tensor(mask)].sum() for each, mask in zip(answers, learned, strict=True)])
            reference = torch.tensor([example.reference_logps for example in chosen])
            ratios = sums.view(len(chosen), 2) - reference
            value = -torch.nn.functional.logsigmoid(KILLED.hyperparameters.beta * (ratios[:, 0] - ratios[:, 1])).mean()
            return value, {}

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


def test_a_program_by_the_package_gives_the_same_model(service: TinkerEmulator, tmp_path: Path) -> None:
    driven.carry_out(service.url, tmp_path)
    ours = driven.final(service, STEPS).state.weights
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        by_the_package(service.url)
        close_connections()
    theirs = driven.final(service, STEPS).state.weights
    assert len(service.models) == 2
    for name, tensor in ours.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=0, atol=1e-6)


def opened(service: TinkerEmulator, folder: Path) -> RemoteEngine:
    found = driven.driver(service.url, folder)
    driven.attach(found, examples(KILLED, ROWS))
    return RemoteEngine(found, Limits(driven.ABILITIES, base_model=driven.BASE))


def ended(engine: RemoteEngine) -> None:
    opening.close(engine.driver, "success")
    engine.driver.service.disconnect()


def test_a_second_driver_on_the_same_session_is_noticed(service: TinkerEmulator, tmp_path: Path) -> None:
    rows, adam = Listed(examples(KILLED, ROWS[:2])), Adam(learning_rate=0.1)
    engine = opened(service, tmp_path)
    engine.forward_backward_custom(rows, KILLED.loss)
    # It has the same numbers to give, and the service has seen this one with another body.
    ledger = tmp_path / "second" / "ledger.jsonl"
    ledger.parent.mkdir()
    ledger.write_bytes((tmp_path / "ledger.jsonl").read_bytes())
    second = RemoteEngine(driven.driver(service.url, ledger.parent), Limits(driven.ABILITIES))
    second.driver.ledger.entries.clear()
    second.optim_step(adam)
    with pytest.raises(RunnerError, match="another driver works on it"):
        engine.optim_step(Adam(learning_rate=0.2))
    second.driver.service.disconnect()
    ended(engine)


def test_weights_that_change_between_two_passes_are_noticed(service: TinkerEmulator, tmp_path: Path) -> None:
    rows = Listed(examples(KILLED, ROWS[:2]))
    engine = opened(service, tmp_path)
    forward = engine.forward

    def disturbed(given: Any) -> Any:
        found = forward(given)
        trainer = service.models[engine.driver.handle.model].trainer
        with torch.no_grad():
            for tensor in trainer.engine.learner.weights.values():
                tensor.add_(0.5)
        return found

    engine.forward = disturbed  # type: ignore[method-assign]
    with pytest.raises(RunnerError, match="its weights have changed between two requests"):
        engine.forward_backward_custom(rows, KILLED.loss)
    ended(engine)


def test_where_noise_hides_a_step_a_lost_answer_leads_back_to_the_checkpoint(
    service: TinkerEmulator, tmp_path: Path
) -> None:
    service.dedupes, service.noise = False, 0.01
    engine = opened(service, tmp_path)
    assert engine.driver.ledger.opened is not None
    assert engine.driver.ledger.opened.noise > 0.001
    assert not engine.driver.ledger.opened.dedupes
    engine.forward_backward_custom(Listed(examples(KILLED, ROWS[:2])), KILLED.loss)
    service.inject(Fault("POST optim_step", "reset_after"))
    with pytest.raises(InDoubt, match="no more than the engine's noise"):
        engine.optim_step(Adam(learning_rate=1e-6))
    ended(engine)
    assert service.live == []
