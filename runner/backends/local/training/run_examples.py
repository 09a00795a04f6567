"""The rows of a run as the training loop asks for them, and the model as it was before training, which scores them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property

from runner import cache
from runner.backends.local import model
from runner.backends.local.loaded_model import LoadedModel
from runner.backends.local.machine.profile import Profile
from runner.backends.local.scoring.reference_cache import ReferenceLogps
from runner.backends.local.scoring.scorer import Scorer
from runner.backends.local.training.training_data import TrainingData
from runner.data.splits import Split
from runner.models.chat.tokenizer import TokenRow
from runner.training.examples import Mismatched, StoredExamples
from runner.training.mismatched import mismatched_rows
from runner.training.recipe import Recipe


class RunExamples:
    """Rows with the reference's log-probabilities where the loss of `recipe` compares with them; each made once."""

    def __init__(self, loaded: LoadedModel, data: TrainingData, recipe: Recipe, profile: Profile) -> None:
        self.loaded, self.data, self.recipe, self.profile = loaded, data, recipe, profile
        self._kept: dict[str, StoredExamples | None] = {}
        self._references: list[ReferenceLogps] = []

    def of(self, split: Split) -> StoredExamples:
        """Return a split's rows; none where there is no such split."""
        rows = self.data.tokens.get(split, ())
        found = self._once(split, lambda: StoredExamples(rows, self._compared(rows), self.data.with_targets(split)))
        assert found is not None
        return found

    @property
    def mismatched(self) -> Mismatched:
        """Prompts with answers to others, if the loss is relative to the divergence."""
        return Mismatched(self._mismatched("train"), self._mismatched("validation"))

    def _mismatched(self, split: Split) -> StoredExamples | None:
        def make() -> StoredExamples | None:
            rows = mismatched_rows(self.data.tokens, split, self.recipe, self.loaded.settings.max_length)
            return None if rows is None else StoredExamples(rows, self._compared(rows))

        return self._once(f"{split}, mismatched", make)

    def _once(self, name: str, make: Callable[[], StoredExamples | None]) -> StoredExamples | None:
        # Kept: the reference of rows is computed as batches ask for it, and remembered here.
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    def _compared(self, rows: Sequence[TokenRow]) -> ReferenceLogps | None:
        """Return the reference of rows, computed when it is first asked for, if the loss has one."""
        if not rows or not self.recipe.loss.has_reference:
            return None
        loaded, path = self.loaded, cache.user_folder() / "reference.db"
        room = loaded.how["tokens_at_once"] // loaded.lanes.count
        reference = ReferenceLogps(path, rows, room, loaded.base_identity, self.reference)
        self._references.append(reference)
        return reference

    @contextmanager
    def reference(self) -> Iterator[Scorer]:
        """Lend the model as it was before training: the adapter off, or a second copy where every weight learns."""
        with self.profile.part("reference"), model.untouched(self.loaded.model):
            yield self._first_copy if self.loaded.settings.tuning == "full" else self.loaded.scorer
        if self._references and all(reference.complete for reference in self._references):
            self.__dict__.pop("_first_copy", None)  # nobody needs it any more

    @cached_property
    def _first_copy(self) -> Scorer:
        """The weights that training started from, in addition to those that learn; as many bytes again as they take."""
        loaded = self.loaded
        return loaded.with_lanes(loaded.make_scorer(loaded.load(loaded.device), loaded.how["packed"]))
