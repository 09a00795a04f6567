"""The unmodified package `tinker` against the emulator, as a program in the manner of its documentation uses it."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("tinker")

from tests.emulator.faults import Fault
from tests.emulator.tinker import TinkerEmulator
from tests.emulator.tinker.emulator import KEY
from tests.emulator.tinker.package import close_connections

pytestmark = pytest.mark.slow

BASE = "tiny/llama"
IDS, TARGETS = [5, 6, 7, 8], [6, 7, 8, 9]


@pytest.fixture
def service(tiny_model: Path) -> Iterator[TinkerEmulator]:
    with TinkerEmulator({BASE: tiny_model}) as found:
        yield found
        assert found.violations == []


@pytest.fixture
def client(service: TinkerEmulator) -> Iterator[Any]:
    import tinker

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = tinker.ServiceClient(base_url=service.url, api_key=KEY, user_metadata={"plan": "abc"})
        yield found
        found.close("success").result()
        close_connections()
    assert service.live == []


def datum(weights: list[float]) -> Any:
    from tinker import types

    inputs = {"target_tokens": TARGETS, "weights": weights}
    return types.Datum(model_input=types.ModelInput.from_ints(IDS), loss_fn_inputs=inputs)


def logps(result: Any) -> Any:
    return np.array(result.loss_fn_outputs[0]["logprobs"].data)


def test_the_package_trains_saves_samples_and_continues_from_a_checkpoint(
    service: TinkerEmulator, client: Any, tmp_path: Path
) -> None:
    from tinker import types

    training = client.create_lora_training_client(BASE, rank=4, seed=7)
    lesson, adam = datum([0.0, 0.0, 1.0, 1.0]), types.AdamParams(learning_rate=1e-2)
    before = logps(training.forward([lesson], "cross_entropy").result())
    losses = []
    for _ in range(3):
        found, step = training.forward_backward([lesson], "cross_entropy"), training.optim_step(adam)
        losses.append(found.result().metrics["loss:sum"])
        assert step.result().metrics["grad_norm"] > 0
    assert losses[0] == pytest.approx(-before[2:].sum())
    assert losses[2] < losses[1] < losses[0]
    after = logps(training.forward([lesson], "cross_entropy").result())
    path = training.save_state("step-3").result().path
    again = client.create_training_client_from_state_with_optimizer(path)
    np.testing.assert_array_equal(logps(again.forward([lesson], "cross_entropy").result()), after)
    assert service.steps(path.split("/")[2]) == 3
    sampling = client.create_sampling_client(model_path=training.save_weights_for_sampler("s3").result().path)
    prompt = types.ModelInput.from_ints(IDS)
    (answer,) = sampling.sample(prompt, 1, types.SamplingParams(max_tokens=4, temperature=0.0)).result().sequences
    assert 1 <= len(answer.tokens) <= 4
    assert sampling.compute_logprobs(prompt).result()[1:] == pytest.approx(after[:-1].tolist(), abs=1e-5)
    base = client.create_sampling_client(base_model=BASE)
    assert base.compute_logprobs(prompt).result()[1:] == pytest.approx(before[:-1].tolist(), abs=1e-5)
    exported = training.save_weights_external("e3").result().path
    rest = client.create_rest_client()
    assert set(rest.get_external_weights_urls(exported).result().urls) >= {
        "adapter_config.json", "adapter_model.safetensors",
    }  # fmt: skip
    kinds = [each.checkpoint_type for each in rest.list_checkpoints(path.split("/")[2]).result().checkpoints]
    assert kinds == ["training", "sampler", "external"]
    rest.delete_checkpoint_from_tinker_path(path).result()
    assert path not in service.checkpoints


@pytest.mark.parametrize("dedupes", [True, False])
def test_a_lost_answer_of_a_step_is_one_step_where_the_service_dedupes_and_two_elsewhere(
    dedupes: bool, service: TinkerEmulator, client: Any
) -> None:
    from tinker import types

    service.dedupes = dedupes
    training = client.create_lora_training_client(BASE, rank=4, seed=7)
    training.forward_backward([datum([1.0, 1.0, 1.0, 1.0])], "cross_entropy").result()
    service.inject(Fault("POST optim_step", "reset_after"))
    training.optim_step(types.AdamParams(learning_rate=1e-2)).result()
    (model,) = service.models
    assert service.steps(model) == (1 if dedupes else 2)


def test_what_the_service_does_not_offer_is_refused(service: TinkerEmulator, client: Any) -> None:
    import tinker

    with pytest.raises(tinker.APIStatusError, match=r"rank 3 is not a power of two"):
        client.create_lora_training_client(BASE, rank=3).get_info()
    with pytest.raises(tinker.APIStatusError, match=r"other/model is not supported; supported: tiny/llama"):
        client.create_lora_training_client("other/model", rank=4).get_info()
