"""Weights shared out among several processes, for a model that does not fit one device (FSDP2).

Each process holds a part of every weight, its gradient and its optimizer's numbers (DTensors). A decoder layer is
gathered whole for its turn in the forward and the backward pass and dropped after it. Files on the disk are
whole, so that a run resumes with another number of processes, sharded or not. All that is not sharded passes
through the functions of this file as it is.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

Tensors = Mapping[str, Tensor]


def shard(model: nn.Module, device: torch.device, count: int) -> None:
    """Share out a model's weights among `count` processes, layer by layer, each on its device.

    Parameters stay attributes of their modules, so that layers of our own, which look them up at each call, see
    them whole within the call of the decoder layer around them.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (count,))
    # Decoder layers are whatever a model keeps in a ModuleList; its name differs (layers, h, blocks).
    repeated = [
        each for each in model.modules() if isinstance(each, nn.ModuleList) and not _within_another(each, model)
    ]
    for module in [*(layer for layers in repeated for layer in layers), model]:
        # The root, too, is dropped after its forward pass: outside of a call every weight is a DTensor.
        part = fully_shard(module, mesh=mesh, reshard_after_forward=True)
        part.set_gradient_divide_factor(1.0)  # the sum: shares of the loss are weights of the whole batch
        part.set_force_sum_reduction_for_comms(True)


def is_part(tensor: Tensor) -> bool:
    """Say whether a tensor is shared out."""
    return isinstance(tensor, DTensor)


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor gathered from all processes, which have to ask for it together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gathered(tensors: Tensors, keep: bool) -> Tensors:
    """Return tensors gathered one by one, on the CPU; without `keep` this process only helps, and gets none."""
    if not any(isinstance(tensor, DTensor) for tensor in tensors.values()):
        return tensors
    found = {}
    for name, tensor in tensors.items():
        # One at a time, so that never more than one tensor is whole on a device; and all ranks in the same order,
        # as each call is a collective one.
        full = whole(tensor.detach())
        if keep:
            found[name] = full.cpu()
    return found


@torch.no_grad()
def fill(tensor: Tensor, full: Tensor) -> None:
    """Copy a whole tensor into one that may be shared out; what counts is that of process 0."""
    # distribute_tensor sends rank 0's values to all.
    tensor.copy_(_like(tensor, full))


def optimizer_like(weights: Tensors, optimizer: Tensors) -> dict[str, Tensor]:
    """Share out the optimizer's whole tensors, by `weight's name/key`, as their weights are."""
    return {path: _like(weights[path.rpartition("/")[0]], value) for path, value in optimizer.items()}


def _like(tensor: Tensor, full: Tensor) -> Tensor:
    # Adam's count of steps is no tensor of its weight's shape and is the same everywhere.
    if not isinstance(tensor, DTensor) or full.shape != tensor.shape:
        return full
    return distribute_tensor(full.to(tensor.device), tensor.device_mesh, tensor.placements)


def _within_another(layers: nn.ModuleList, model: nn.Module) -> bool:
    """Say whether a list of modules lies within a module of another one: an expert, say, within its layer."""
    others = [each for each in model.modules() if isinstance(each, nn.ModuleList) and each is not layers]
    return any(layers is inner for other in others for inner in other.modules())
