"""Which parts of a model are done by our own functions: those that give the same values on trial.

A part is known by its structure, never by the model's name: a peft LoRA layer without dropout, an RMS norm, a
SwiGLU block, layers that share an input, the rotation of queries and keys.
"""

import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Protocol, TypeGuard

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from runner.backends.local.scoring.kernels import LoraLinears, LoraSwiGLU, RMSNorm, Rotate

Forward = Callable[..., object]


class LoraLayer(Protocol):
    """The parts of peft's LoRA layer on a linear one that are used; mappings are by the adapter's name."""

    base_layer: nn.Linear
    lora_A: Mapping[str, nn.Linear]
    lora_B: Mapping[str, nn.Linear]
    scaling: Mapping[str, float]
    disable_adapters: bool

    def modules(self) -> Iterator[nn.Module]:
        """Yield the layer and all within it."""

    def __call__(self, x: Tensor) -> Tensor:
        """Return what the layer makes of its input."""


@dataclass
class Patch:
    """An attribute that is to hold a function of ours."""

    owner: object
    name: str
    ours: Forward
    own: object = field(default=None, init=False)

    def put(self) -> None:
        """Put our function in place."""
        # None where the function is the class's: `undo` then takes ours off the instance, and the class's shows
        # again.
        self.own = vars(self.owner).get(self.name)
        setattr(self.owner, self.name, self.ours)

    def undo(self) -> None:
        """Give the owner its own function back."""
        if self.own is None:
            delattr(self.owner, self.name)
        else:
            setattr(self.owner, self.name, self.own)


def found(model: nn.Module) -> list[Patch]:
    """Return what can be done by our functions, each tried; patches are made in the order of the list."""
    patches: list[Patch] = []
    for module in model.modules():
        # `modules()` yields a block before what is in it, so that q, k and v are found as siblings before each of
        # them is met alone; a layer is given one patch only.
        for kind in (_norm, _swiglu, _siblings, _lone):
            patches += [each for each in kind(module) if all(each.owner is not other.owner for other in patches)]
    # Models call the rotation by its name in their own file, so that is where it is replaced: for every model
    # of that file, until it is undone.
    files = {type(module).__module__ for module in model.modules() if hasattr(module, "q_proj")}
    for name in sorted(files):
        patches += _rotation(sys.modules[name])
    return patches


def _norm(module: nn.Module) -> list[Patch]:
    epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    # transformers has a class per model (LlamaRMSNorm, Qwen3RMSNorm, …). Whether it is the plain norm
    # (Gemma's multiplies by 1 + weight) shows on trial.
    if not type(module).__name__.endswith("RMSNorm") or epsilon is None:
        return []

    def forward(x: Tensor) -> object:
        y, inverse = RMSNorm.apply(x, module.weight, epsilon)  # type: ignore[no-untyped-call]
        if y.requires_grad:
            # Word for the layer that is given y: it keeps x and 1 / rms, which are kept here anyway, and forms y
            # again (`_kept`); y itself, as large as x, need not stay.
            y.normed_from = x.detach(), module.weight, inverse
        return y

    return _tried([Patch(module, "forward", forward)], [module], module.get_parameter("weight"))


def _swiglu(module: nn.Module) -> list[Patch]:
    layers = _plain_layers(module, "gate_proj", "up_proj", "down_proj")
    if not layers or any(layer.base_layer.bias is not None for layer in layers):
        return []
    own = module.forward

    def forward(x: Tensor) -> object:
        # The reference is computed with adapters off; our function knows no such switch.
        if layers[0].disable_adapters:
            return own(x)
        # Looked up at each call: a sharded model has whole weights only within it (sharding.py).
        terms = [each for layer in layers for each in _terms(layer) if each is not None]
        return LoraSwiGLU.apply(x, _scale(layers[0]), *terms)  # type: ignore[no-untyped-call]

    return _tried([Patch(module, "forward", forward)], [module], layers[0].base_layer.weight)


def _siblings(module: nn.Module) -> list[Patch]:
    layers = _plain_layers(module, "q_proj", "k_proj", "v_proj")
    # One product for all three needs one scale.
    return _together(layers) if len({*map(_scale, layers)}) == 1 else []


def _lone(module: nn.Module) -> list[Patch]:
    return _together([module]) if _plain(module) else []


def _together(layers: Sequence[LoraLayer]) -> list[Patch]:
    """Return a forward for each of some LoRA layers that are given the same input in turn: the first computes all."""
    lane = threading.local()  # packs may be computed side by side

    def forward(x: Tensor, index: int) -> Tensor:
        layer = layers[index]
        if layer.disable_adapters:
            return linear(x, layer.base_layer.weight, layer.base_layer.bias)
        held: dict[int, Tensor] = vars(lane).setdefault("held", {})
        # The same tensor object, not equal values: attention gives one hidden state to q, k and v in turn.
        if index not in held or lane.given is not x:
            terms = [each for layer in layers for each in _terms(layer)]
            held.update(enumerate(LoraLinears.apply(x, _scale(layer), *terms)))  # type: ignore[no-untyped-call]
            lane.given = x
        result = held.pop(index)
        if not held:
            # Let go of the activation.
            lane.given = None
        return result

    patches = [Patch(layer, "forward", lambda x, index=index: forward(x, index)) for index, layer in enumerate(layers)]
    return _tried(patches, layers, layers[0].base_layer.weight)


def _rotation(file: ModuleType) -> list[Patch]:
    own = getattr(file, "apply_rotary_pos_emb", None)
    if own is None:
        return []

    def forward(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1) -> tuple[Tensor, Tensor]:
        angles = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
        return Rotate.apply(q, *angles), Rotate.apply(k, *angles)  # type: ignore[no-untyped-call]

    # Fewer heads of k than of q, and halves that are equal, as all models of this kind have them.
    q, k = _random(1, 2, 3, 8), _random(1, 1, 3, 8)
    cos, sin = (torch.cat((half, half), -1) for half in _random(2, 1, 3, 4))
    try:
        pairs = zip(own(q, k, cos, sin), forward(q, k, cos, sin), strict=True)
        same = all(torch.allclose(one, other, rtol=1e-5, atol=1e-5) for one, other in pairs)
    # Another signature, or another layout: GPT-J turns neighbours, not halves.
    except (TypeError, RuntimeError):
        return []
    return [Patch(file, "apply_rotary_pos_emb", forward)] if same else []


def _plain(layer: object) -> TypeGuard[LoraLayer]:
    """Say whether a module is a LoRA layer with one adapter on a linear one, nothing more: no dropout, no DoRA."""
    base, names = getattr(layer, "base_layer", None), list(getattr(layer, "lora_A", {}))
    # `lora_variant` is where peft notes DoRA and the like. Of a peft that has no such note nothing is known.
    # Not isinstance: bitsandbytes' quantised layers are subclasses of nn.Linear.
    if type(base) is not nn.Linear or len(names) != 1 or getattr(layer, "lora_variant", True):
        return False
    # peft puts nn.Identity where dropout is 0.
    a, b, dropout = (getattr(layer, name)[names[0]] for name in ("lora_A", "lora_B", "lora_dropout"))
    return type(dropout) is nn.Identity and a.bias is None and b.bias is None


def _plain_layers(module: nn.Module, *names: str) -> list[LoraLayer]:
    """Return the LoRA layers of these names, or none where one of them is missing or something else."""
    layers = [layer for name in names if _plain(layer := getattr(module, name, None))]
    return layers if len(layers) == len(names) else []


def _terms(layer: LoraLayer) -> Iterator[Tensor | None]:
    """Yield W, b, A and B of a LoRA layer."""
    (name,) = layer.lora_A
    yield from (layer.base_layer.weight, layer.base_layer.bias, layer.lora_A[name].weight, layer.lora_B[name].weight)


def _scale(layer: LoraLayer) -> float:
    (scale,) = layer.scaling.values()
    return float(scale)


@torch.no_grad()
def _tried(patches: list[Patch], modules: Sequence[nn.Module | LoraLayer], weight: Tensor) -> list[Patch]:
    """Return the patches if they give the modules' own values for a few random tokens, else none."""
    x = _random(1, 3, weight.shape[-1]).to(weight.device, weight.dtype)
    # bfloat16 has 8 significant bits: rounding once is 0.4 %.
    tolerance = 1e-5 if weight.dtype == torch.float32 else 2e-2
    with _noisy_adapters(modules):
        pairs = [(module(x), patch.ours(x)) for module, patch in zip(modules, patches, strict=True)]
    same = all(
        isinstance(ours, Tensor) and torch.allclose(own, ours, rtol=tolerance, atol=tolerance) for own, ours in pairs
    )
    return patches if same else []


@contextmanager
def _noisy_adapters(modules: Sequence[nn.Module | LoraLayer]) -> Iterator[None]:
    """Within the block the LoRA term of each layer is about as large as its input.

    Before training B is zero, and so is the term: a wrong one would not be seen.
    """
    layers = [layer for module in modules for layer in module.modules() if _plain(layer)]
    factors = [(layer, next(iter(layer.lora_B.values())).weight) for layer in layers]
    own = [factor.clone() for _, factor in factors]
    for layer, factor in factors:
        factor.copy_(_random(*factor.shape) / (_scale(layer) * factor.shape[1] ** 0.5))
    try:
        yield
    finally:
        for (_, factor), before in zip(factors, own, strict=True):
            factor.copy_(before)


def _random(*shape: int) -> Tensor:
    # A generator of its own, as the run's random numbers are not to depend on what was tried.
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))
