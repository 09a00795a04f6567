"""A request with what its data's sources mean now, such as the commit of a branch on the hub.

It is what a run keeps: it reads the same rows hours later, and needs no network for them.
"""

from dataclasses import replace

import msgspec

from runner.data import mixture
from runner.data.reading.files import pinned
from runner.request.keys import Dataset, Request


def of(request: Request) -> Request:
    """Return the request with every source pinned. Raises `DataError` for one that cannot be had."""
    prompts = request.evaluation.prompts
    return replace(
        request,
        dataset=_dataset(request.dataset),
        # Prompts may come from a source, too, and are asked again whenever a run is resumed.
        evaluation=replace(request.evaluation, prompts=None if prompts is None else pinned(prompts)),
    )


def _dataset(dataset: Dataset) -> Dataset:
    validation = None if dataset.validation is None else pinned(dataset.validation)
    if not dataset.mix:
        return replace(dataset, train=pinned(dataset.train), validation=validation)
    mix = tuple(
        (name, msgspec.structs.replace(each, source=pinned(each.source))) for name, each in mixture.read(dataset.mix)
    )
    # `train` follows from the mixture, and would be refused next to another one when the request is read again.
    values = {name: msgspec.to_builtins(each) for name, each in mix}
    return replace(dataset, train=mixture.train_of(mix), mix=values, validation=validation)
