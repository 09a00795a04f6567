"""The unmodified package `azure-ai-finetuningsessions` against the emulator, as its documentation uses it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("azure.ai.finetuningsessions")

from runner.training.engine import Adam
from tests.emulator.faults import Fault
from tests.emulator.sessions import SessionsEmulator, package

pytestmark = pytest.mark.slow

BASE = "tiny/llama"
IDS = [5, 6, 7, 8, 9]
PREVIEW = {"foundry_features": "FineTuningSessions=V1Preview", "api_version": "v1"}


@pytest.fixture
def service(tiny_model: Path) -> Iterator[SessionsEmulator]:
    with SessionsEmulator({BASE: tiny_model}) as found:
        yield found
        assert found.violations == []
        assert found.live == []


@pytest.fixture
def client(service: SessionsEmulator) -> Iterator[Any]:
    with package.client(service.url) as found:
        yield found


def logps(result: Any) -> Any:
    return np.array(result.loss_fn_outputs[0]["logprobs"]["data"])


def test_the_package_trains_saves_samples_and_continues_from_a_checkpoint(
    service: SessionsEmulator, client: Any
) -> None:
    from azure.ai.finetuningsessions import FineTuningSession
    from azure.ai.finetuningsessions.models import SamplingParams

    session = FineTuningSession.create(
        client, base_model=BASE, lora_config=package.LORA, user_metadata={"plan": "abc"}, training_type="GlobalStandard"
    )
    lesson, adam = package.datum(IDS, [0.0, 0.0, 1.0, 1.0]), package.adam(Adam(learning_rate=1e-2))
    before, losses = logps(session.forward([lesson])), []
    for number in range(3):
        losses.append(session.forward_backward([lesson]).total_loss)
        assert session.optim_step(adam).step_count == number + 1
    assert losses[0] == pytest.approx(-before[2:].sum())
    assert losses[2] < losses[1] < losses[0]
    path = session.save_weights("step-3").path
    assert path == f"loom://{session.session_id}/weights/step-3"
    sampler = session.save_weights_for_sampler(1, sampling_session_seq_id=0).checkpoint_id
    greedy = SamplingParams(max_tokens=4, temperature=0.0, top_p=1.0, top_k=-1)
    found = session.sample(IDS[:3], greedy, checkpoint_id=sampler, seq_id=1, prompt_logprobs=True)
    assert 1 <= len(found.sequences[0].tokens) <= 4
    after = logps(session.forward([lesson]))
    assert found.prompt_logprobs[1:] == pytest.approx(after[:2].tolist(), abs=1e-5)
    again = FineTuningSession.create_from_checkpoint(
        client, checkpoint_path=path, base_model=BASE, lora_config=package.LORA
    )  # fmt: skip
    np.testing.assert_array_equal(logps(again.forward([lesson])), after)
    again.forward_backward([lesson])
    assert again.optim_step(adam).step_count == 4
    listed = client.sessions.list(**PREVIEW)
    assert {each.session_id: each.status for each in listed.data} == {
        session.session_id: "running",
        again.session_id: "running",
    }
    (kept, _) = client.checkpoints.list(session.session_id, **PREVIEW).checkpoints
    assert (kept.checkpoint_id, kept.checkpoint_type) == ("step-3", "training")
    session.close()
    assert client.sessions.get(session.session_id, **PREVIEW).status == "succeeded"
    again.delete()
    assert path in service.checkpoints


def test_a_raw_poller_finds_the_result_of_a_request_by_its_token(service: SessionsEmulator, client: Any) -> None:
    from azure.ai.finetuningsessions import FineTuningSession
    from azure.ai.finetuningsessions.models import ForwardBackwardInput, ForwardBackwardRequest, OptimStepRequest

    session = FineTuningSession.create(client, base_model=BASE, lora_config=package.LORA)
    batch = ForwardBackwardInput(data=[package.datum(IDS)], loss_fn="cross_entropy")
    request = ForwardBackwardRequest(forward_backward_input=batch)
    client.training.begin_forward_backward(session.session_id, request, **PREVIEW, polling_interval=0).wait()
    step = OptimStepRequest(adam_params=package.adam(Adam(learning_rate=1e-2)))
    poller = client.training.begin_optim_step(session.session_id, step, **PREVIEW, polling_interval=0)
    with package.client(service.url) as other:
        token = poller.continuation_token()
        other.training.begin_optim_step(
            session.session_id, step, **PREVIEW, continuation_token=token, polling_interval=0
        ).wait()  # fmt: skip
    assert service.steps(session.session_id) == 1
    session.close()


def test_the_asynchronous_client_trains_and_is_refused_where_there_is_no_capacity(
    service: SessionsEmulator,
) -> None:
    from azure.ai.finetuningsessions import NoCapacityError

    async def train() -> int:
        async with package.asynchronous_client(service.url) as client:
            session = await client.create_session(base_model=BASE, lora_config=package.LORA)
            await client.forward_backward(session, [package.datum(IDS)])
            found = await client.optim_step(session, package.adam(Adam(learning_rate=1e-2)))
            await client.close_session(session)
            busy = {"detail": {"reason": "engine_busy", "message": "No engine capacity"}}
            service.inject(Fault("POST sessions", "status", status=503, body=busy, times=None))
            with pytest.raises(NoCapacityError, match="No engine capacity"):
                await client.create_session(base_model=BASE, lora_config=package.LORA)
            return int(found.step_count)

    assert asyncio.run(train()) == 1
