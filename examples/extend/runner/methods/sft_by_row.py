"""SFT in which each conversation counts the same, however long its answers: a method in one file.

python -m runner method=sft_by_row dataset=house_style_sft
"""

from dataclasses import dataclass

from runner.methods.sft import SFT, SupervisedFineTuning


@dataclass(frozen=True, kw_only=True)
class SFTByRow(SFT):
    """Keys under `sft_by_row`: those of SFT."""


class ByRow(SupervisedFineTuning):
    """SFT's loss, a token's mean in each row; rows are then averaged with equal weights."""

    name = "sft_by_row"
    hyperparameters = SFTByRow

    def weight(self, num_tokens: tuple[int, ...], hyperparameters: SFT) -> float:
        """Return 1, where SFT returns the number of answer tokens."""
        return 1.0


METHOD = ByRow()
