"""The emulator seen through the real SDKs: what a client of the hosted service gets to see, in both styles."""

import json
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from runner.backends.foundry.catalogue import catalogue
from tests.conftest import pair_row
from tests.emulator import Limits, Script, models
from tests.emulator.sdk import Client, chat_row, connected
from tests.pictures import ADDRESS, conversation, part, picture

pytestmark = pytest.mark.slow

JOBS = "/api/projects/rehearsal/openai/v1/fine_tuning/jobs"


@pytest.fixture(params=["strict", "lax"])
def client(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    with connected(monkeypatch, request.param, speed=0) as client:  # time passes only where a test says so
        yield client


@pytest.mark.parametrize("method", ["dpo", "supervised"])
def test_a_job_is_queued_runs_and_succeeds_with_results(client: Client, method: str) -> None:
    job = client.order(method, suffix="a1b2", metadata={"plan": "a1b2"}, seed=0)
    first = "pending" if client.cloud.lax else "validating_files"
    seen = [job.status]
    for _ in range(40):
        client.cloud.advance(0.05)
        seen.append(client.jobs.retrieve(job.id).status)
    assert list(dict.fromkeys(seen)) == [first, "queued", "running", "succeeded"]
    done = client.jobs.retrieve(job.id)
    assert "a1b2" in done.fine_tuned_model
    assert done.metadata == {"plan": "a1b2"}
    assert done.trained_tokens > 0
    header, *lines = client.openai.files.content(done.result_files[0]).text.splitlines()
    assert header.startswith("step,train_loss")
    assert len(lines) == 36
    assert ("train_reward_margin" in header) == (method == "dpo")


def test_styles_differ_in_status_code_ids_and_fields(client: Client) -> None:
    lax = client.cloud.lax
    file = client.upload([chat_row(number) for number in range(10)])
    raw = client.jobs.with_raw_response.create(model="gpt-4.1-mini", training_file=file.id)
    body = json.loads(raw.content)
    assert raw.status_code == (201 if lax else 200)
    assert body["id"].startswith("ft-" if lax else "ftjob-")
    assert [key in body for key in ("organization_id", "seed", "error", "validation_file")] == [not lax] * 4
    assert body["hyperparameters"]["n_epochs"] == (-1 if lax else "auto")


def test_metadata_can_be_withheld(client: Client) -> None:
    client.cloud.echo_metadata = False
    assert client.order(metadata={"plan": "x"}, suffix="kept").metadata is None


def test_events_come_in_the_order_of_the_style_and_keep_their_ids(client: Client) -> None:
    job = client.order()
    client.cloud.advance(0.7)
    early = [event.id for event in client.jobs.list_events(job.id)]
    client.ended(job)
    events = list(client.jobs.list_events(job.id, limit=7))
    assert len({event.id for event in events}) == len(events) > 36
    assert set(early) < {event.id for event in events}
    messages = [event.message for event in events if event.type == "message"]
    assert messages[0 if client.cloud.lax else -1].startswith("Created")
    steps = [event.data["step"] for event in events if event.type == "metrics"]
    assert steps == sorted(steps, reverse=not client.cloud.lax) != []


def test_checkpoints_are_those_of_the_last_three_epochs(client: Client) -> None:
    job = client.order(method="supervised", rows=10) if client.cloud.lax else client.order(rows=10)
    assert list(client.jobs.checkpoints.list(job.id)) == []
    client.ended(job)
    found = list(client.jobs.checkpoints.list(job.id))
    assert [item.step_number for item in found] == [30, 20, 10]
    name = found[0].fine_tuned_model_checkpoint
    assert name.startswith("ftchkpt-") if client.cloud.lax else name.endswith(":ckpt-step-30")


def test_as_many_jobs_run_and_wait_as_may_and_more_are_turned_away(client: Client) -> None:
    client.cloud.limits = Limits(running=1, queued=1)
    client.cloud.script = Script(running_seconds=3600)
    file = client.upload([pair_row(number) for number in range(10)])

    def states() -> list[str]:
        return [job.status for job in client.jobs.list()]

    client.order(training_file=file.id)
    client.cloud.advance(60)
    client.order(training_file=file.id)
    client.cloud.advance(60)
    assert states() == ["queued", "running"], "its turn has not come"
    with pytest.raises(openai.RateLimitError, match="maximum number of queued fine-tuning jobs"):
        client.order(training_file=file.id)
    client.cloud.advance(3600)
    assert states() == ["running", "succeeded"]
    assert client.order(training_file=file.id).status in ("validating_files", "pending")


def test_lists_come_in_pages(client: Client) -> None:
    file = client.upload([pair_row(number) for number in range(10)])
    jobs = [client.order(training_file=file.id).id for _ in range(5)]
    page = client.jobs.list(limit=2)
    assert [item.id for item in page.data] == jobs[:2:-1]
    assert page.has_more
    assert [item.id for item in client.jobs.list(limit=2)] == jobs[::-1]
    with pytest.raises(openai.BadRequestError, match="no object with id"):
        client.jobs.list(after="ftjob-none")


def test_jobs_are_listed_by_metadata(client: Client) -> None:
    mine = client.order(metadata={"plan": "mine"})
    client.order(metadata={"plan": "other"})
    assert [item.id for item in client.jobs.list(metadata={"plan": "mine"})] == [mine.id]


def test_files_are_listed_by_purpose_and_order_and_deleted(client: Client) -> None:
    job = client.order()
    client.ended(job)
    file = client.upload([chat_row(number) for number in range(10)])
    uploaded = [item.id for item in client.openai.files.list(purpose="fine-tune", order="asc")]
    assert uploaded == [item.id for item in client.cloud.created_files]
    assert len(list(client.openai.files.list(purpose="fine-tune-results"))) == 1
    client.openai.files.delete(file.id)
    with pytest.raises(openai.NotFoundError):
        client.openai.files.retrieve(file.id)
    assert len(client.cloud.created_files) == 2


def test_a_file_is_kept_byte_for_byte_and_processed_after_a_while(client: Client) -> None:
    content = b"\xef\xbb\xbf" + b"".join(json.dumps(chat_row(number)).encode() + b"\r\n" for number in range(10))
    made = client.openai.files.create(file=("rows with bom.jsonl", content), purpose="fine-tune")
    assert made.status == ("pending" if client.cloud.lax else "uploaded")
    client.cloud.advance(60)
    assert client.openai.files.wait_for_processing(made.id, poll_interval=0.05).status == "processed"
    assert client.openai.files.content(made.id).content == content
    assert client.cloud.files[made.id].content == content


BAD_FILES = {
    "empty": (b" \n", "empty"),
    "not_json": (b'{"messages": [', "Line 1 is not valid JSON"),
    "not_utf8": (b'{"messages": "\xff"}', "not UTF-8"),
    "role": (json.dumps({"messages": [{"role": "robot", "content": "x"}]}).encode(), "unknown role"),
    "pair": (json.dumps(pair_row(1) | {"preferred_output": []}).encode(), "'preferred_output'"),
    "order": (json.dumps(pair_row(1) | {"input": {"messages": pair_row(1)["preferred_output"]}}).encode(), "user"),
    "image": (json.dumps(conversation(1, part(picture(format="GIF")))).encode(), "no JPEG, PNG or WEBP"),
    "images": (json.dumps(conversation(1, *[part(ADDRESS)] * 65)).encode(), "65 images; 64 are allowed"),
    "mixed": (json.dumps(pair_row(1)).encode() + b"\n" + json.dumps(chat_row(1)).encode(), "mixes"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_breaks_the_rules_ends_in_error(client: Client, name: str) -> None:
    content, words = BAD_FILES[name]
    file = client.upload(content)
    assert file.status == "error"
    assert words in file.status_details
    with pytest.raises(openai.BadRequestError, match="is invalid"):
        client.order(training_file=file.id)


def test_a_file_that_is_not_processed_yet_is_refused(client: Client) -> None:
    content = "".join(json.dumps(pair_row(number)) + "\n" for number in range(10)).encode()
    made = client.openai.files.create(file=("a.jsonl", content), purpose="fine-tune")
    with pytest.raises(openai.BadRequestError, match="still being processed"):
        client.order(training_file=made.id)


@pytest.mark.parametrize(
    ("method", "rows", "code"), [("dpo", 9, "invalid_n_examples"), ("supervised", 12, "invalid_file_format")]
)
def test_rows_that_do_not_suit_fail_the_job_while_validating(client: Client, method: str, rows: int, code: str) -> None:
    file = client.upload([pair_row(number) for number in range(rows)])
    done = client.ended(client.order(method, training_file=file.id))
    assert (done.status, done.error.code, done.error.param) == ("failed", code, "training_file")


BAD_ORDERS: dict[str, tuple[dict[str, Any], str]] = {
    "model": ({"model": "gpt-9"}, "does not exist"),
    "method_of_model": ({"model": "Ministral-3B"}, "not available for fine-tuning by method 'dpo'"),
    "file": ({"training_file": "file-none"}, "does not exist"),
    "null": ({"validation_file": None}, "must not be null"),
    "suffix": ({"suffix": "nineteen-characters"}, "18"),
    "metadata": ({"metadata": {str(number): "" for number in range(17)}}, "16"),
    "training_type": ({"extra_body": {"trainingType": "Developer"}}, "The fineTuningJob field is required"),
    "unknown": ({"extra_body": {"epochs": 3}}, "epochs"),
    "epochs": ({"hyperparameters": {"n_epochs": 0}}, "n_epochs"),
    "beta": ({"hyperparameters": {"beta": 3}}, "up to 2"),
    "foreign": ({"method": "supervised", "hyperparameters": {"beta": 0.1}}, "beta"),
}


@pytest.mark.parametrize("name", BAD_ORDERS)
def test_an_order_that_breaks_a_rule_is_refused(client: Client, name: str) -> None:
    order, words = BAD_ORDERS[name]
    with pytest.raises(openai.BadRequestError, match=words) as refused:
        client.order(**order)
    assert set(refused.value.response.json()["error"]) == {"code", "message", "param", "type"}
    assert client.cloud.created_jobs == []


def test_a_tuned_model_can_be_tuned_again(client: Client) -> None:
    first = client.order()
    done = client.ended(first)
    assert client.order(model=done.fine_tuned_model).model == done.fine_tuned_model


def test_a_script_reports_how_a_job_goes(client: Client) -> None:
    steps = [{"train_loss": 0.5}, {"train_loss": 0.25, "valid_loss": 0.3}]
    client.cloud.script = Script(queued_seconds=0, running_seconds=10, steps=steps)
    job = client.order()
    client.cloud.script.outcome = "failed"  # a job keeps the script that it was created with
    client.cloud.advance(5)
    assert client.jobs.retrieve(job.id).status == "running"
    done = client.ended(job)
    absent = "-1" if client.cloud.lax else ""
    table = client.openai.files.content(done.result_files[0]).text
    assert table == f"step,train_loss,valid_loss\n1,0.5,{absent}\n2,0.25,0.3\n"


@pytest.mark.parametrize("error", [None, {}, {"code": None, "message": None}, {"code": "x", "message": "broke"}])
def test_a_failed_job_shows_the_scripted_error(client: Client, error: dict[str, Any] | None) -> None:
    client.cloud.script = Script(outcome="failed", error=error)
    job = client.order()
    client.cloud.advance(60)
    body = client.jobs.with_raw_response.retrieve(job.id).http_response.json()
    assert body["status"] == "failed"
    assert body["error"] == ({} if error is None and client.cloud.lax else error)


@pytest.mark.parametrize("results", ["base64", "empty", "missing"])
def test_results_can_be_odd(client: Client, results: str) -> None:
    client.cloud.script = Script(results=results)
    id = client.ended(client.order()).result_files[0]
    if results == "missing":
        with pytest.raises(openai.NotFoundError):
            client.openai.files.content(id)
    else:
        content = client.openai.files.content(id).content
        assert content == b"" if results == "empty" else content.startswith(b"c3RlcCx0cmFpbl9sb3Nz")


def test_a_job_is_cancelled_by_the_client_or_in_the_portal(client: Client) -> None:
    client.cloud.script = Script(running_seconds=1000)
    first, second = client.order(), client.order()
    assert client.jobs.cancel(first.id).status == "cancelled"
    client.cloud.cancel_from_portal(second.id)
    assert client.ended(second).status == "cancelled"
    with pytest.raises(openai.BadRequestError, match="is cancelled"):
        client.jobs.cancel(first.id)


def test_a_job_fails_on_demand(client: Client) -> None:
    job = client.order()
    client.cloud.fail(job.id, {"code": "server_error", "message": "the cluster burnt down"})
    done = client.ended(job)
    assert (done.status, done.error.message) == ("failed", "the cluster burnt down")


def test_a_paused_job_waits_until_it_is_resumed(client: Client) -> None:
    client.cloud.script = Script(running_seconds=100)
    job = client.order()
    client.cloud.advance(50)
    assert client.jobs.pause(job.id).status == "pausing"
    client.cloud.advance(1000)
    assert client.jobs.retrieve(job.id).status == "paused"
    steps = len(list(client.jobs.list_events(job.id)))
    assert client.jobs.resume(job.id).status == "resuming"
    client.cloud.advance(40)
    assert client.jobs.retrieve(job.id).status == "running"
    assert len(list(client.jobs.list_events(job.id))) > steps
    client.cloud.advance(20)
    assert client.jobs.retrieve(job.id).status == "succeeded"


def test_a_job_whose_file_is_deleted_fails(client: Client) -> None:
    job = client.order()
    client.openai.files.delete(job.training_file)
    assert client.ended(job).error.code == "fileNotFound"


def test_the_clock_can_be_off_and_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    with connected(monkeypatch, clock_offset=3600, speed=1000) as client:
        job = client.order()
        assert 3500 < job.created_at - time.time() < 3600 + 3600  # a loaded machine may take seconds, a thousandfold
        time.sleep(0.01)
        assert client.jobs.retrieve(job.id).status == "succeeded"


def test_every_request_is_kept(client: Client) -> None:
    client.order()
    last = client.cloud.requests[-1]
    assert (last.method, last.path, last.status) == ("POST", JOBS, 201 if client.cloud.lax else 200)
    assert last.json()["model"] == "gpt-4.1-mini"
    assert last.headers["authorization"].removeprefix("Bearer ") in client.cloud.tokens
    client.jobs.list(limit=3)
    assert client.cloud.requests[-1].query == {"limit": "3"}


WORDS = "Wrap it in cloth,\n  not in plastic."


def test_a_streamed_chat_completion_comes_word_by_word(client: Client) -> None:
    client.cloud.add_deployment("answers", "gpt-4.1-mini")
    client.cloud.answer = lambda model, messages: WORDS
    asked: Any = {"model": "answers", "messages": [{"role": "user", "content": "Bread?"}]}
    whole = client.openai.chat.completions.create(**asked)
    chunks = list(client.openai.chat.completions.create(**asked, stream=True))
    reported = [chunk.choices[0].delta.content for chunk in chunks[:-1]]
    assert reported == ["", "Wrap ", "it ", "in ", "cloth,\n  ", "not ", "in ", "plastic."]
    assert "".join(reported) == whole.choices[0].message.content
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None] * 8 + ["stop"]
    with_usage = list(
        client.openai.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    assert with_usage[-1].usage == whole.usage
    assert with_usage[-1].choices == []


def test_a_streamed_response_builds_up_to_the_whole_one(client: Client) -> None:
    client.cloud.add_deployment("answers", "gpt-4.1-mini")
    client.cloud.answer = lambda model, messages: WORDS
    events: list[Any] = list(client.openai.responses.create(model="answers", input="Bread?", stream=True))
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert len(deltas) == 7
    assert "".join(deltas) == WORDS == events[-1].response.output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
    with client.openai.responses.stream(model="answers", input="Bread?") as stream:
        assert stream.get_final_response().output_text == WORDS


def test_a_stream_leaves_event_by_event(client: Client) -> None:
    client.cloud.add_deployment("answers", "gpt-4.1-mini")
    raw = client.openai.chat.completions.with_streaming_response
    with raw.create(model="answers", messages=[{"role": "user", "content": "Bread?"}], stream=True) as answer:
        lines = [line for line in answer.iter_lines() if line]
    assert answer.headers["content-type"] == "text/event-stream"
    assert answer.headers["transfer-encoding"] == "chunked"
    assert all(line.startswith("data: ") for line in lines)
    assert lines[-1] == "data: [DONE]"


GRADER: dict[str, Any] = {
    "type": "string_check", "name": "same", "operation": "eq",
    "input": "{{ sample.output_text }}", "reference": "{{ item.answer }}",
}  # fmt: skip


def reinforcement(client: Client, model: str = "o4-mini", validated: bool = True, **settings: Any) -> Any:
    file = client.upload(
        [{"messages": chat_row(number)["messages"][:1], "answer": str(number)} for number in range(10)]
    )
    more = {"trainingType": settings.pop("training_type")} if "training_type" in settings else {}
    method: Any = {"type": "reinforcement", "reinforcement": settings}
    validation: Any = {"validation_file": file.id} if validated else {}
    return client.jobs.create(model=model, training_file=file.id, method=method, extra_body=more, **validation)


SCHEMA: dict[str, Any] = {
    "type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
}  # fmt: skip
MULTI: dict[str, Any] = {
    "type": "multi", "name": "both", "graders": {"same": GRADER, "other": {**GRADER, "name": "other"}},
    "calculate_output": "0.5 * same + 0.5 * other",
}  # fmt: skip


def test_a_reinforcement_job_is_answered_with_its_grader_and_response_format(client: Client) -> None:
    job = reinforcement(client, grader=GRADER, response_format=SCHEMA, hyperparameters={"eval_interval": 5})
    for seen in (job, client.jobs.retrieve(job.id)):
        assert seen.method.reinforcement.grader.to_dict() == GRADER
        assert seen.method.reinforcement.to_dict()["response_format"] == SCHEMA
        assert seen.method.reinforcement.hyperparameters.eval_interval == 5
        assert "eval_interval" not in seen.hyperparameters.to_dict()
        assert seen.to_dict()["eval_id"].startswith("eval_")


@pytest.mark.parametrize("settings", [{}, {"grader": {"type": "label_model"}}, {"grader": "same"}])
def test_a_reinforcement_job_without_a_grader_is_refused(client: Client, settings: dict[str, Any]) -> None:
    with pytest.raises(openai.BadRequestError, match="grader must be an object with a type among"):
        reinforcement(client, **settings)
    client.cloud.violations.clear()  # the request is against the types, too


UNTYPED = "Invalid type for 'graders.input': expected an object, but got a string instead."
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no validation file": ({"grader": GRADER, "validated": False}, "validation_file is required"),
    "a multi's graders as one": ({"grader": {**MULTI, "graders": GRADER}}, UNTYPED),
    "a multi of one": ({"grader": {**MULTI, "graders": {"same": GRADER}}}, "needs two graders at least, got 1"),
    "a multi within a multi": (
        {"grader": {**MULTI, "graders": {"same": GRADER, "other": MULTI}}}, "cannot be within another",
    ),
    "a formula that is none": ({"grader": {**MULTI, "calculate_output": "same +"}}, "Invalid grader: .*calculate"),
    "a formula with another key": ({"grader": {**MULTI, "calculate_output": "same + third"}}, "got third, which is no"),
    "a grader without a name": ({"grader": {**GRADER, "name": ""}}, "Missing required parameter: .*name"),
    "a field that is ours": (
        {"grader": {"type": "python", "name": "x", "source": "def grade(s, i): return 1", "timeout": 3}},
        "Unknown parameter: .*timeout",
    ),
    "a flat response format": (
        {"grader": GRADER, "response_format": {"type": "json_schema", "name": "a", "schema": {}}}, "_format must have",
    ),
    "an unknown effort": (
        {"grader": GRADER, "hyperparameters": {"reasoning_effort": "most"}}, "Invalid value for 'reasoning_effort'",
    ),
    "no training type": ({"grader": GRADER, "model": "gpt-oss-120b"}, "has no default trainingType"),
    "a training type of others": (
        {"grader": GRADER, "model": "gpt-oss-120b", "training_type": "Standard"},
        "does not support fine-tuning with Standard TrainingType",
    ),
}  # fmt: skip


@pytest.mark.parametrize("refused", REFUSED)
def test_a_reinforcement_job_that_breaks_a_rule_is_refused(refused: str, client: Client) -> None:
    settings, reported = REFUSED[refused]
    with pytest.raises(openai.BadRequestError, match=reported):
        reinforcement(client, **settings)
    client.cloud.violations.clear()


def test_a_reinforcement_jobs_events_are_nested_and_its_results_file_is_flat(client: Client) -> None:
    job = client.ended(reinforcement(client, grader=MULTI, hyperparameters={"n_epochs": 1, "batch_size": 5}))
    assert job.status == "succeeded"
    [first, last] = sorted(
        (each.data for each in client.jobs.list_events(job.id) if each.type == "metrics"), key=lambda data: data["step"]
    )
    assert [each["name"] for each in first["scores"]["graders"]] == ["same", "other"]
    assert "full_valid_mean_reward" not in first
    assert last["full_valid_mean_reward"] == last["scores"]["valid_reward_mean"]
    columns = client.openai.files.content(job.result_files[0]).text.splitlines()[0].split(",")
    assert {"train_mean_reward", "scores/graders/same/train_reward_mean", "timing/step/full_iteration"} <= set(columns)


def test_a_reinforcement_job_is_paused_once_at_its_limit_of_cost(client: Client) -> None:
    client.cloud.script = Script(validating_seconds=1, queued_seconds=1, running_seconds=100, limit_of_cost=50)
    job = reinforcement(client, grader=GRADER)
    client.cloud.advance(1000)
    assert client.jobs.retrieve(job.id).status == "paused"
    assert any("cost limit of $5000" in event.message for event in client.jobs.list_events(job.id))
    client.jobs.resume(job.id)
    client.cloud.advance(1000)
    assert client.jobs.retrieve(job.id).status == "succeeded"


def test_a_grader_is_validated_and_run_as_a_job_would(client: Client) -> None:
    alpha: Any = client.openai.fine_tuning.alpha.graders
    assert alpha.validate(grader=MULTI).grader.to_dict()["calculate_output"] == MULTI["calculate_output"]
    found = alpha.run(grader=MULTI, model_sample="4", item={"answer": "4"})
    assert (found.reward, found.sub_rewards) == (1.0, {"same": 1.0, "other": 1.0})
    lacking = alpha.run(grader=GRADER, model_sample="4", item={"anwser": "4"})
    assert (lacking.reward, lacking.metadata.errors.invalid_variable_error) == (0.0, True)
    with pytest.raises(openai.BadRequestError, match="needs two graders"):
        alpha.validate(grader={**MULTI, "graders": {"same": GRADER}})


def test_every_model_and_method_that_the_runners_table_allows_is_accepted() -> None:
    wire = {"sft": "supervised", "dpo": "dpo", "rft": "reinforcement"}
    for name, model in catalogue(None).models.items():
        assert {wire[method] for method in model.methods} <= set(models.BASES[name].methods), name
