"""Log-probabilities of answer tokens under a model.

Only the positions that predict an answer token are projected onto the vocabulary, a piece of it at a time:
on a small model the projection is the most expensive product, and its logits would be the largest tensor.
"""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.functional import cross_entropy

from runner.backends.local.parallel import sharding
from runner.backends.local.parallel.lanes import Lanes
from runner.backends.local.scoring import attention, patches
from runner.backends.local.scoring.autograd import Context
from runner.backends.local.scoring.packing import Pack, pack
from runner.methods import Scores, TokenScores
from runner.models.chat.tokenizer import TokenRow

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

CHUNK = 4096
"""Tokens of the vocabulary projected at once: enough for a full product, few enough for the logits to stay in cache."""

ROUNDING = 0.5
"""Nats that half precision may round an answer by, times the root of its tokens.

SmolLM2-135M in bfloat16: rounding up to 0.28; a row that sees the one before it is off by 3.1 to 5.3.
"""


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return what log-probabilities of a model are computed in: float32 at least."""
    return torch.promote_types(dtype, torch.float32)


class TokenLogps(Function):
    """log softmax(h Wᵀ)[label] of each position, with W frozen; the logits never exist all at once.

    The vocabulary comes in pieces, with a running maximum and sum, as in attention with h as queries and W as both
    keys and values (Milakov and Gimelshein 2018, arXiv:1805.02867). The gradient by h is W[label] - softmax(h Wᵀ) W
    times what comes from above, so it is formed on the way, before it is known what comes from above.
    """

    @staticmethod
    def forward(ctx: Context, hidden: Tensor, weight: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """hidden (A, size), weight (vocabulary, size), labels (A,); returns log-probabilities and hits, both (A,)."""
        top = hidden.new_full((len(hidden), 1), -torch.inf, dtype=wide(hidden.dtype))
        total, chosen = torch.zeros_like(top), torch.zeros_like(top)
        pull = torch.zeros_like(hidden) if ctx.needs_input_grad[0] else None
        start = 0
        for piece in weight.split(CHUNK):
            logits = (hidden @ piece.T).to(top.dtype)
            index = labels[:, None] - start
            # Labels of other pieces are clamped so as to be read at all, and then not taken.
            inside = (index >= 0) & (index < len(piece))
            chosen = torch.where(inside, logits.gather(1, index.clamp(0, len(piece) - 1)), chosen)
            higher = torch.maximum(top, logits.amax(-1, keepdim=True))
            # What was summed under the old maximum counts less under the new one; at first it is exp(-inf) = 0.
            shrink = (top - higher).exp_()
            mass = logits.sub_(higher).exp_()
            total = total * shrink + mass.sum(-1, keepdim=True)
            if pull is not None:
                # Σ exp(logit - top) W so far: the expected row of W once it is divided by the total.
                pull.mul_(shrink).addmm_(mass.to(piece.dtype), piece)
            top, start = higher, start + len(piece)
        if pull is not None:
            ctx.save_for_backward(pull.div_(total).neg_().add_(weight[labels]))
        # Exact: where the label is the likeliest token both are one number.
        correct = (chosen == top).squeeze(1).to(top.dtype)
        ctx.mark_non_differentiable(correct)
        return (chosen - top - total.log()).squeeze(1), correct

    @staticmethod
    def backward(ctx: Context, dlogps: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient of hidden."""
        (slopes,) = ctx.saved_tensors
        return slopes * dlogps[:, None].to(slopes.dtype), None, None


class Scorer:
    """A model that scores rows: packed, by our own attention and layers, or each answer alone, as the model comes.

    Packed, rows share a forward call, and a row's answers its prompt. `exact` says whether this gives a model's own
    values; where it does not, `packed=False` is the way. `noise` is NEFTune's alpha, used in training only.
    """

    def __init__(self, model: "PreTrainedModel | PeftModel", packed: bool = True, noise: float = 0.0) -> None:
        self.lanes = Lanes()
        # peft's wrapper only passes calls on; its layers are within the base model.
        self.model = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.head = self.model.get_output_embeddings()
        self.packed, self.noise = packed, noise
        self.temperature = 1.0
        """What logits are divided by: log-probabilities are those of answers sampled at this temperature."""
        self._attention = self.model.config._attn_implementation
        self._patches = patches.found(self.model) if packed else []
        self._projects = packed and self._plain_head()
        if self._projects:
            # The model then ends with hidden states, and `TokenLogps` projects them piece by piece.
            self._patches.append(patches.Patch(self.head, "forward", lambda hidden: hidden))
        self._apply_patches()

    @contextmanager
    def released(self) -> Iterator[None]:
        """Within the block the model is as it came, as generation needs it."""
        self._undo_patches()
        try:
            yield
        finally:
            self._apply_patches()

    def unpacked(self) -> "Scorer":
        """Leave the model as it came, for good; return what scores each answer alone by it."""
        self._undo_patches()
        return type(self)(self.model, False, self.noise)

    def _undo_patches(self) -> None:
        for patch in reversed(self._patches):
            patch.undo()
        self.model.set_attn_implementation(self._attention)

    def _apply_patches(self) -> None:
        for patch in self._patches:
            patch.put()
        if self.packed:
            # Generation keeps keys and values between its calls, which segments know nothing of: `released`.
            self.model.set_attn_implementation(attention.NAME)

    def __call__(self, rows: Sequence[TokenRow], by_token: bool = False) -> Scores:
        """Return the summed log-probability of each answer (equation 7's log policy(y | x)), in nats.

        With `by_token` also that of each token, in the order of rows, answers and tokens.
        """
        if not self.packed:
            return _joined([_joined([self._score([each], by_token) for each in _alone(row)], 1) for row in rows], 0)
        return self._score(rows, by_token)

    def _score(self, rows: Sequence[TokenRow], by_token: bool) -> Scores:
        laid = pack(rows).to(self.model.device)
        logps, correct = self.token_logps(laid)
        return Scores.of_tokens(TokenScores(logps, laid.owner, correct), laid.shape, by_token)

    def token_logps(self, laid: Pack) -> tuple[Tensor, Tensor]:
        """Return each scored token's log-probability (A,), float32 at least, and 1 where it is the likeliest (A,)."""
        asked: dict[str, object] = {"input_ids": laid.ids, "position_ids": laid.positions, "use_cache": False}
        if self.packed:
            asked["segments"] = laid.segments
        with self._noise_on(laid.row_lengths):
            # Given positions, transformers hands only their hidden states to the output layer.
            out = self.model(**asked, logits_to_keep=laid.predict).logits[0]
        if self.temperature != 1.0:
            out = out / self.temperature  # of hidden states gives the same, as the projection is linear
        if self._projects:
            # A sharded head is dropped with the root's forward call, and is gathered here once more.
            weight = sharding.whole(self.head.weight)
            result: tuple[Tensor, Tensor] = TokenLogps.apply(out, weight, laid.labels)  # type: ignore[no-untyped-call]
            return result
        logps = -cross_entropy(out.to(wide(out.dtype)), laid.labels, reduction="none")
        return logps, (out.detach().argmax(-1) == laid.labels).to(logps.dtype)

    def _noise_on(self, row_lengths: Tensor) -> AbstractContextManager[None]:
        """Return the context of a forward call: with noise on the embeddings, in training and where it is asked for."""
        if not (self.noise and self.model.training):
            return nullcontext()
        return _noisy(self.model.get_input_embeddings(), self.noise, row_lengths)

    def _plain_head(self) -> bool:
        """Say whether the output layer is a weight that does not learn, and nothing more."""
        # Gemma 2 bends its logits after the projection (soft-capping): not a plain product.
        if type(self.head) is not nn.Linear or getattr(self.model.config, "final_logit_softcapping", None) is not None:
            return False
        return "bias" not in dict(self.head.named_parameters()) and not self.head.weight.requires_grad


@contextmanager
def _noisy(embedding: nn.Module, alpha: float, row_lengths: Tensor) -> Iterator[None]:
    """Within the block embeddings get uniform noise of size alpha / √(tokens of the row · size) (arXiv:2310.05914)."""

    def add(_: nn.Module, __: object, embedded: Tensor) -> Tensor:
        size = alpha / (row_lengths * embedded.shape[-1]).sqrt()
        return embedded + torch.empty_like(embedded).uniform_(-1, 1) * size.unsqueeze(-1)

    hook = embedding.register_forward_hook(add)
    try:
        yield
    finally:
        hook.remove()


@torch.no_grad()
def exact(scorer: Scorer, rows: Sequence[TokenRow]) -> bool:
    """Say whether rows packed together have the log-probabilities that the model gives each answer alone.

    A model whose forward knows no segments, or fails with them, is not exact either, nor one that caps attention's
    scores: on a few rows that may not show.
    """
    if getattr(scorer.model.config, "attn_logit_softcapping", None) is not None:
        return False
    scorer.model.eval()
    with scorer.released():
        alone = type(scorer)(scorer.model, packed=False)(rows)
    try:
        together = _values(scorer(rows))
    except (TypeError, ValueError, RuntimeError, NotImplementedError):
        return False
    # Sums over an answer's tokens: roundings add up, a wrong layout is off by far more.
    tolerance = 1e-4 if scorer.model.dtype == torch.float32 else 2e-2
    expected = _values(alone)
    allowed = tolerance + tolerance * expected.abs()
    if scorer.model.dtype != torch.float32 and alone.rewards is None:
        # A share of the sum allows an answer of a word or two less than its rounding.
        allowed = torch.maximum(allowed, ROUNDING * alone.num_tokens.sqrt())
    return bool(((together - expected).abs() <= allowed).all())


def _values(scores: Scores) -> Tensor:
    """Return what a model says of each answer: its reward where it has a head for it, else its log-probability."""
    return scores.logps if scores.rewards is None else scores.rewards


def _alone(row: TokenRow) -> list[TokenRow]:
    """Return a row for each answer."""
    return [
        replace(row, answers=(answer,), learned=(learned,))
        for answer, learned in zip(row.answers, row.learned, strict=True)
    ]


def _joined(parts: Sequence[Scores], axis: int) -> Scores:
    """Return the scores of answers of one row (axis 1) or of several rows (axis 0)."""
    names = ("logps", "num_tokens", "num_correct")
    logps, num_tokens, num_correct = (torch.cat([getattr(part, name) for part in parts], axis) for name in names)
    rewards = [part.rewards for part in parts if part.rewards is not None]
    joined = torch.cat(rewards, axis) if rewards else None
    return Scores(logps, num_tokens, num_correct, _joined_tokens(parts), rewards=joined)


def _joined_tokens(parts: Sequence[Scores]) -> TokenScores | None:
    tokens = [part.tokens for part in parts if part.tokens is not None]
    if not tokens:
        return None
    # Along either axis the answers of a part come after all those of the parts before.
    before = accumulate((part.logps.numel() for part in parts), initial=0)
    owner = torch.cat([each.owner + first for each, first in zip(tokens, before, strict=False)])
    return TokenScores(torch.cat([each.logps for each in tokens]), owner, torch.cat([each.correct for each in tokens]))
