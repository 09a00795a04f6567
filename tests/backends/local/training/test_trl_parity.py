"""Loss, rewards, gradients and ten optimizer steps are those of TRL's trainers on the same rows, in float32.

Differences that are left on purpose: TRL drops a row whose prompt alone fills the limit, silently, where the runner
refuses it and says which row it is; TRL counts a tie of rewards as wrong, the runner as half right; TRL takes no
conversation without a turn before the answer.
"""

import runpy
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from runner import methods
from runner.backends.local.scoring.scorer import Scorer
from runner.backends.local.training.in_process import InProcessEngine
from runner.backends.local.training.learner import Learner
from runner.backends.local.training.recipe import LocalRecipe
from runner.data.kinds.conversation import Conversation
from runner.data.kinds.preference import Pair
from runner.data.rows import Message
from runner.errors import DataError
from runner.methods.dpo import DPO
from runner.methods.sft import SFT
from runner.models.chat.tokenizer import ChatTokenizer
from runner.training import by_primitives
from runner.training.examples import Example
from runner.training.loss import Loss
from tests.backends.local import plain

pytestmark = pytest.mark.slow

trl = pytest.importorskip("trl", reason="TRL is a development dependency (pip install '.[dev]')")

MAX_LENGTH = 96
SYSTEM = Message("system", "Answer in one line.")
TARGETS = {"gpt2": ["c_attn", "c_proj", "c_fc"]}
NUM_STEPS, BATCH_SIZE = 10, 3


def user(text: str) -> Message:
    return Message("user", text)


def assistant(text: str) -> Message:
    return Message("assistant", text)


def pair(prompt: Sequence[Message], chosen: str, rejected: str) -> Pair:
    return Pair(tuple(prompt), (assistant(chosen),), (assistant(rejected),))


AWKWARD = {
    "plain": pair([user("Why is the sky blue?")], "Air scatters blue light.", "Because."),
    "with a system prompt": pair([SYSTEM, user("How do I keep bread?")], "Wrap it.", "Eat it now, all of it!"),
    "many turns, non-Latin": pair(
        [user("Hi"), assistant("Hello."), user("你好, again é?"), assistant("é"), user("…и?")], "Wrap it, 你好.", "Да."
    ),
    "one token": pair([user("1")], "1", "2"),
    "no text in the prompt": pair([user("")], "Air", "light"),
    "no text in an answer": pair([user("Why?")], "Air.", ""),
    "answers that begin alike": pair([user("How?")], "Wrap it in cloth.", "Wrap it in paper."),
    "answers that are alike": pair([user("How?")], "Wrap it.", "Wrap it."),
    "different lengths": pair([user("How?")], "It.", "Air scatters blue light. " * 4),
    "a cut answer": pair([user("0123456789 " * 3)], "Air", "Air scatters blue light. " * 20),
    "both answers cut": pair([user("0123456789 " * 3)], "Wrap it in cloth. " * 20, "Air scatters blue light. " * 20),
}
PAIRS = list(AWKWARD.values())
CONVERSATIONS = [Conversation((*row.prompt, *row.chosen)) for row in PAIRS]
KEYS = {
    "dpo": DPO(n_epochs=1, batch_size=4, learning_rate_multiplier=1.0, beta=0.3, rpo_alpha=0.0),
    "sft": SFT(n_epochs=1, batch_size=4, learning_rate_multiplier=1.0),
}
SHOWN = {
    "dpo": {
        "reward_accuracy": "rewards/accuracies",
        "reward_margin": "rewards/margins",
        "reward_chosen": "rewards/chosen",
        "reward_rejected": "rewards/rejected",
        "logps_chosen": "logps/chosen",
        "logps_rejected": "logps/rejected",
    },
    "sft": {"token_accuracy": "mean_token_accuracy"},
}


def test_each_row_is_as_awkward_as_its_name_says(tiny_model: Path) -> None:
    tokenizer = ChatTokenizer(tiny_model)
    found = {name: tokenizer.row(row) for name, row in AWKWARD.items()}
    longest = {name: len(row.prompt) + max(map(len, row.answers)) for name, row in found.items()}
    assert {name for name, length in longest.items() if length > MAX_LENGTH} == {"a cut answer", "both answers cut"}
    assert all(len(row.prompt) < MAX_LENGTH for row in found.values())
    one, other = found["answers that begin alike"].answers
    assert one[0] == other[0]
    assert found["one token"].answers[0][1:] == found["one token"].answers[1][1:]  # next to what ends the turn


def policy(folder: Path, architecture: str, tuning: str) -> Any:
    """Return the model to tune, already a little away from the reference."""
    model = plain.load(folder)
    return plain.disturbed(model) if tuning == "full" else plain.adapted(model, TARGETS.get(architecture, "all-linear"))


def learner(model: Any, method: str, keys: Any, learning_rate: float = 1e-3, **more: Any) -> Learner:
    recipe = LocalRecipe(
        method=methods.load(method), hyperparameters=keys, learning_rate=learning_rate, schedule="cosine",
        warmup_ratio=0.0, weight_decay=0.1, max_grad_norm=1.0, num_steps=NUM_STEPS, seed=0, evaluate_every=9,
        checkpoint_every=9, keep_best=False, tokens_at_once=200,
    )  # fmt: skip
    return Learner(Scorer(model), replace(recipe, **more))


def examples(
    learner: Learner, model: Any, folder: Path, method: str, rows: Sequence[Any], max_length: int = MAX_LENGTH
) -> list[Example]:
    """Return rows ready to be learned from, with what the untouched model says where that is needed.

    As in a run, it is the learner's own scorer that says it where an adapter can be left out. Another kind of output
    layer (one that learns) rounds otherwise, by 1e-5 per token over 49,152 words, which adds up in a reward.
    """
    tokenizer = ChatTokenizer(folder)
    tokens = [tokenizer.row(row, max_length) for row in rows]
    if method == "sft":
        return [Example(row, None) for row in tokens]
    with torch.no_grad():
        if hasattr(model, "disable_adapter"):
            with model.disable_adapter():
                logps = learner.scorer(tokens).logps.tolist()
        else:
            logps = Scorer(plain.load(folder))(tokens).logps.tolist()
    return [Example(row, tuple(each)) for row, each in zip(tokens, logps, strict=True)]


def turns(messages: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": str(message.content)} for message in messages]


def trainer(folder: Path, method: str, model: Any, rows: Sequence[Any], tmp_path: Path, **more: Any) -> Any:
    """Return TRL's trainer for rows in the order given."""
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast

    settings = {
        "output_dir": str(tmp_path), "per_device_train_batch_size": len(rows), "bf16": False, "use_cpu": True,
        "report_to": [], "gradient_checkpointing": False, "max_length": MAX_LENGTH, "save_strategy": "no",
        "train_sampling_strategy": "sequential", "logging_steps": 1, "disable_tqdm": True, "optim": "adamw_torch_fused",
        "lr_scheduler_type": "cosine", "warmup_steps": 0, "weight_decay": 0.1, "max_grad_norm": 1.0, **more,
    }  # fmt: skip
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    if method == "dpo":
        keys = ("prompt", "chosen", "rejected")
        data = Dataset.from_list([{key: turns(getattr(row, key)) for key in keys} for row in rows])
        arguments = trl.DPOConfig(**({"beta": 0.3} | settings))
        return trl.DPOTrainer(
            model=model, ref_model=plain.load(folder), train_dataset=data, processing_class=tokenizer, args=arguments
        )
    data = Dataset.from_list(
        [{"prompt": turns(row.messages[:-1]), "completion": turns(row.messages[-1:])} for row in rows]
    )
    arguments = trl.SFTConfig(**settings, completion_only_loss=True)
    return trl.SFTTrainer(model=model, train_dataset=data, processing_class=tokenizer, args=arguments)


def last_turn_only(rows: Sequence[Conversation]) -> list[Conversation]:
    """Return conversations of which the last answer is learned, as TRL's prompt and completion are."""
    return [
        Conversation(
            (
                *(replace_weight(message) if message.role == "assistant" else message for message in row.messages[:-1]),
                row.messages[-1],
            )
        )
        for row in rows
    ]


def replace_weight(message: Message) -> Message:
    return Message(message.role, message.content, weight=0)


def rows_of(method: str) -> list[Any]:
    return PAIRS if method == "dpo" else last_turn_only(CONVERSATIONS)


def ours(folder: Path, method: str, model: Any, rows: Sequence[Any], keys: Any) -> tuple[dict[str, float], Any]:
    """Return loss and metrics of one batch, and its gradient by weight."""
    found = learner(model, method, keys)
    engine = InProcessEngine(found, folder)
    values = engine.forward_backward_custom(examples(found, model, folder, method, rows), found.recipe.loss)
    return dict(values()), gradients(found.model)


def theirs(trainer: Any, method: str, numbers: Sequence[int] | None = None) -> tuple[dict[str, float], Any]:
    """Return TRL's loss and metrics of the rows with these numbers (all) as one batch, and its gradient by weight."""
    rows = [trainer.train_dataset[number] for number in numbers or range(len(trainer.train_dataset))]
    trainer.model.eval()
    trainer.model.zero_grad()
    trainer._metrics["eval"].clear()
    with plain.untouched():
        loss = trainer.compute_loss(trainer.model, trainer.data_collator(rows))
        loss.backward()
    metrics = trainer._metrics["eval"]
    values = {"loss": loss.item()} | {name: metrics[key][0] for name, key in SHOWN[method].items()}
    if method == "dpo":
        values["reward_accuracy"] += sum(row["chosen"] == row["rejected"] for row in rows) / len(rows) / 2
    found = {name: gradient.clone() for name, gradient in gradients(trainer.model).items()}
    trainer.model.zero_grad()
    trainer._metrics["eval"].clear()
    return values, found


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {bare(name): weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


def bare(name: str) -> str:
    """Return a weight's name without what wraps the model."""
    return name.removeprefix("base_model.model.")


def assert_same(one: tuple[dict[str, float], Any], other: tuple[dict[str, float], Any]) -> None:
    (values, found), (their_values, expected) = one, other
    # A reward is a small difference of sums of up to some hundred nats, of which float32 holds seven digits.
    largest = max(abs(value) for name, value in their_values.items() if name != "loss")
    slack = 1e-5 + 2 * torch.finfo(torch.float32).eps * largest
    for name, value in their_values.items():
        assert values[name] == pytest.approx(value, rel=1e-4, abs=slack), name
    assert found.keys() == expected.keys()
    mine, its = (torch.cat([each[name].flatten() for name in expected]) for each in (found, expected))
    assert (mine - its).norm() < 1e-4 * its.norm() + 1e-6  # answers that are alike pull nowhere


@pytest.fixture(scope="module")
def trainer_of_pairs(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return trainer(tiny_model, "dpo", policy(tiny_model, "llama", "full"), PAIRS, tmp_path_factory.mktemp("trl"))


@pytest.mark.parametrize("name", AWKWARD)
def test_each_awkward_pair_agrees_by_itself(name: str, trainer_of_pairs: Any, tiny_model: Path) -> None:
    expected = theirs(trainer_of_pairs, "dpo", [list(AWKWARD).index(name)])
    assert_same(ours(tiny_model, "dpo", policy(tiny_model, "llama", "full"), [AWKWARD[name]], KEYS["dpo"]), expected)


EACH_ONCE = {("dpo", "llama", "lora"), ("dpo", "gpt2", "full"), ("sft", "llama", "full"), ("sft", "qwen2", "lora")}
"""Each method with each tuning, and each architecture: what they do does not depend on each other. 5 s a case."""


@pytest.mark.parametrize(
    ("method", "architecture", "tuning"),
    [
        pytest.param(*case, marks=() if case in EACH_ONCE else pytest.mark.exhaustive)
        for case in product(("dpo", "sft"), ("llama", "qwen2", "gpt2"), ("lora", "full"))
    ],
)
def test_one_batch_of_awkward_rows_agrees_and_ten_optimizer_steps_lead_to_the_same_weights(
    method: str, architecture: str, tuning: str, tiny_models: Any, tmp_path: Path
) -> None:
    folder = tiny_models(architecture)
    awkward = rows_of(method)
    rows = (awkward * 3)[: NUM_STEPS * BATCH_SIZE]
    their = trainer(
        folder, method, policy(folder, architecture, tuning), rows, tmp_path,
        per_device_train_batch_size=BATCH_SIZE, max_steps=NUM_STEPS, learning_rate=1e-3,
    )  # fmt: skip
    batch = theirs(their, method, range(len(awkward)))
    assert_same(ours(folder, method, policy(folder, architecture, tuning), awkward, KEYS[method]), batch)
    before = {bare(name): weight.detach().clone() for name, weight in their.model.named_parameters()}
    with plain.untouched():
        their.train()
    model = policy(folder, architecture, tuning)
    mine = learner(model, method, KEYS[method])
    given = examples(mine, model, folder, method, rows)
    engine, recipe = InProcessEngine(mine, tmp_path), mine.recipe
    steps = []
    for at in range(NUM_STEPS):
        values = engine.forward_backward_custom(given[at * BATCH_SIZE : (at + 1) * BATCH_SIZE], recipe.loss)
        steps.append({**values(), **engine.optim_step(recipe.adam(at))()})
    logged = [entry for entry in their.state.log_history if "loss" in entry]
    assert len(logged) == NUM_STEPS
    for found, expected in zip(steps, logged, strict=True):
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-3)
        assert found["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-3)
    after = {bare(name): weight.detach() for name, weight in their.model.named_parameters() if weight.requires_grad}
    moved = {bare(name): weight.detach() for name, weight in mine.weights.items()}
    assert moved.keys() == after.keys()
    one, other = (torch.cat([(each[n] - before[n]).flatten() for n in after]) for each in (moved, after))
    assert other.norm() > 0.1
    assert plain.apart(one, other) < 1e-3  # of the way gone, which is a small part of the weights


def test_a_prompt_that_fills_the_limit_is_refused_where_trl_drops_the_row(tiny_model: Path, tmp_path: Path) -> None:
    long = pair([user("0123456789 " * 100)], "Air.", "It.")
    kept = trainer(tiny_model, "dpo", plain.load(tiny_model), [PAIRS[0], long], tmp_path).train_dataset
    assert len(kept) == 1
    tokenizer = ChatTokenizer(tiny_model)
    with pytest.raises(DataError, match=f"the prompt alone fills backend.max_length={MAX_LENGTH}"):
        tokenizer.row(long, MAX_LENGTH)
    # One token of room is enough for both.
    room = len(tokenizer.row(long).prompt) + 1
    kept = trainer(tiny_model, "dpo", plain.load(tiny_model), [long], tmp_path, max_length=room).train_dataset
    assert len(kept) == 1
    assert [len(answer) for answer in tokenizer.row(long, room).answers] == [1, 1]


def test_rpo_agrees_with_trl_sigmoid_plus_sft_on_one_pair(tiny_model: Path, tmp_path: Path) -> None:
    keys = replace(KEYS["dpo"], rpo_alpha=0.7)
    more = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.7]}
    expected = theirs(
        trainer(tiny_model, "dpo", policy(tiny_model, "llama", "full"), PAIRS[:1], tmp_path, **more), "dpo"
    )
    assert_same(ours(tiny_model, "dpo", policy(tiny_model, "llama", "full"), PAIRS[:1], keys), expected)


def test_a_loss_by_token_agrees_with_trl_dynamic_fine_tuning_in_one_pass_and_in_two(
    tiny_model: Path, tmp_path: Path
) -> None:
    rows, model = rows_of("sft"), policy(tiny_model, "llama", "full")
    their = trainer(tiny_model, "sft", policy(tiny_model, "llama", "full"), rows, tmp_path, loss_type="dft")
    expected = theirs(their, "sft")
    source = Path(__file__).parents[4] / "examples" / "extend" / "runner" / "methods" / "dft.py"
    extension = runpy.run_path(str(source))
    mine, loss = learner(model, "sft", KEYS["sft"]), Loss(extension["METHOD"], KEYS["sft"])
    engine, given = InProcessEngine(mine, tmp_path), examples(mine, model, tiny_model, "sft", rows)
    for forward_backward in (InProcessEngine.forward_backward_custom, by_primitives.forward_backward_custom):
        values = forward_backward(engine, given, loss)()
        assert_same((dict(values), gradients(mine.model)), expected)
        mine.model.zero_grad()


# SFT's one log-probability a row is among DPO's four, on the same model; the tiny models above compare SFT itself.
@pytest.mark.parametrize("method", ["dpo", pytest.param("sft", marks=pytest.mark.exhaustive)])
def test_one_batch_agrees_on_the_embedded_model(method: str, embedded_model: Path, tmp_path: Path) -> None:
    rows = rows_of(method)[:3]
    tuned = policy(embedded_model, "llama", "lora")
    expected = theirs(trainer(embedded_model, method, tuned, rows, tmp_path), method)
    assert_same(ours(embedded_model, method, policy(embedded_model, "llama", "lora"), rows, KEYS[method]), expected)


def test_the_reference_of_an_answer_of_two_hundred_tokens_is_that_of_the_embedded_model_in_float64(
    embedded_model: Path,
) -> None:
    row = pair([user("How do I keep bread?")], "Wrap it in cloth. " * 40, "Eat it.")
    model = policy(embedded_model, "llama", "lora")
    (example,) = examples(learner(model, "dpo", KEYS["dpo"]), model, embedded_model, "dpo", [row], max_length=256)
    with torch.no_grad(), plain.untouched():
        expected = plain.logps(plain.load(embedded_model).double(), example.tokens)
    assert max(map(len, example.tokens.answers)) > 200
    assert example.reference_logps == pytest.approx(expected.tolist(), abs=2e-4)
