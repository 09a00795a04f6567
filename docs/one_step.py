"""Training in one page: what the local engine computes, without packs, lanes, ranks, caches and checkpoints.

    python docs/one_step.py dpo.batch_size=2 backend.max_steps=3

prints the loss of each optimizer step. The engine's losses are the same (tests/test_docs.py), and come several times
faster: it packs rows into one sequence, computes each prompt once, and projects onto the vocabulary only where an
answer token is predicted.
"""

import sys
from collections.abc import Iterator

import torch

from runner import api, methods, models
from runner.backends.local import model as engine_model
from runner.backends.local.keys import Local
from runner.methods import Scores
from runner.models.chat.tokenizer import ChatTokenizer, TokenRow
from runner.plan import Run
from runner.training.schedule import count_steps


def answer_score(model: torch.nn.Module, prompt: list[int], answer: list[int], learned: list[bool]) -> torch.Tensor:
    """Return [summed log-probability of the learned tokens, how many they are, how many greedy decoding gets right]."""
    ids = torch.tensor([prompt + answer])
    logps = model(input_ids=ids).logits[0, :-1].log_softmax(-1)  # position i predicts token i + 1
    targets = ids[0, 1:]
    mask = torch.tensor([False] * len(prompt) + learned)[1:]
    right = logps.argmax(-1) == targets
    picked = logps.gather(-1, targets[:, None])[:, 0]
    return torch.stack([picked[mask].sum(), mask.sum().float(), (right & mask).sum().float()])


def score(model: torch.nn.Module, rows: list[TokenRow]) -> Scores:
    """Return the scores of all answers of some rows, each tensor of shape (rows, answers)."""
    answers = [[(row.prompt, *each) for each in zip(row.answers, row.learned, strict=True)] for row in rows]
    values = torch.stack([torch.stack([answer_score(model, *each) for each in row]) for row in answers])
    return Scores(logps=values[..., 0], num_tokens=values[..., 1], num_correct=values[..., 2])


def learning_rate(step: int, num_steps: int, peak: float, warmup_ratio: float) -> float:
    """Return the rate of an optimizer step: a linear climb to the peak, then half a cosine down to zero."""
    warmup = torch.tensor(num_steps * warmup_ratio).ceil().item()
    if step < warmup:
        return peak * (step + 1) / warmup
    done = torch.tensor((step - warmup) / max(1, num_steps - warmup))
    return float(peak * (1 + torch.cos(torch.pi * done)) / 2)


def train(run: Run) -> Iterator[float]:
    """Yield the loss of each optimizer step of a LoRA run with the cosine schedule."""
    settings, keys, method = Local.of(run.request), run.hyperparameters, methods.load(run.plan.method)
    folder = models.fetch(run.plan.model.source)
    tokenizer = ChatTokenizer(models.tokenizer_folder(folder))
    rows = [tokenizer.row(row, settings.max_length) for row in run.rows("train")]
    model = engine_model.prepare(engine_model.load(folder), settings, run.plan.seed)  # a LoRA adapter on frozen weights
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    adam = torch.optim.AdamW(weights, weight_decay=settings.weight_decay)
    num_steps = count_steps(keys.n_epochs, keys.batch_size, len(rows), settings.max_steps)
    for step in range(num_steps):
        # Each epoch visits the rows in an order of its own.
        epoch, position = divmod(step, -(-len(rows) // keys.batch_size))
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(run.plan.seed + epoch)).tolist()
        batch = [rows[number] for number in order[position * keys.batch_size :][: keys.batch_size]]
        with torch.no_grad(), model.disable_adapter():  # the reference: the same weights without the adapter
            reference = score(model, batch).logps
        losses, _ = method.loss(score(model, batch), reference, keys)
        weight = torch.tensor([method.weight(tuple(map(sum, row.learned)), keys) for row in batch])
        loss = (losses * weight).sum() / weight.sum()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, settings.max_grad_norm)
        peak = settings.learning_rate * keys.learning_rate_multiplier
        adam.param_groups[0]["lr"] = learning_rate(step, num_steps, peak, settings.warmup_ratio)
        adam.step()
        adam.zero_grad()
        yield loss.item()


if __name__ == "__main__":
    for number, value in enumerate(train(api.plan(*sys.argv[1:]).run), 1):
        print(f"step {number}: loss {value:.6f}")  # noqa: T201 - a program
