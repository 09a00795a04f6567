"""What the rewards of sampled answers say: figures for charts, and sentences for what hinders learning.

Pure functions of rewards and answers. A reward is None where the grader gave no grade.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from statistics import fmean

from runner.methods.rft.advantages import spread
from runner.record.graded import AnswerGrade
from runner.rollouts.sampled import Group

Rewards = Sequence[Sequence[float | None]]
"""Of each group its answers' rewards."""

TELLING_ANSWERS = 16
"""With fewer answers nothing is said of what rewards go by."""
LENGTH_ALONE = 0.95
"""The share of the rewards' variance from which length alone is said to decide them."""


def figures(groups: Sequence[Group], grades: Sequence[AnswerGrade]) -> dict[str, float]:
    """Return the metrics of some answers by name, without the split; grades in the order of the answers."""
    answers = [answer for group in groups for answer in group.answers]
    rewards = [grade.score for grade in grades if grade.score is not None]
    logps = [logp for answer in answers for logp in answer.logps]
    found = {
        "answer_tokens": fmean(len(answer.ids) for answer in answers),
        "truncated": fmean(not answer.ended for answer in answers),
        # Of tokens drawn from the policy, -log p has the entropy as its mean: no pass over the vocabulary is needed.
        "entropy": -fmean(logps),
        "ungraded": fmean(grade.score is None for grade in grades),
    }
    if rewards:
        found["reward"] = fmean(rewards)
    names = dict.fromkeys(name for grade in grades for name in grade.parts)
    return found | {f"reward_{name}": fmean(g.parts[name] for g in grades if name in g.parts) for name in names}


def by_group(groups: Sequence[Group], grades: Sequence[AnswerGrade]) -> list[list[float | None]]:
    """Return the reward of each answer, a group at a time."""
    scores = iter(grade.score for grade in grades)
    return [[next(scores) for _ in group.answers] for group in groups]


def without_spread(rewards: Rewards) -> float:
    """Return the share of groups whose graded answers all have the same reward."""
    return fmean(not spread(group) for group in rewards)


def no_spread(rewards: Rewards) -> str:
    """Say that there is nothing to learn from, where no group has answers with different rewards; else nothing."""
    if any(spread(group) for group in rewards):
        return ""
    # One value for all says more than many groups that each have one: the grader, or the task, is to blame.
    known = {reward for group in rewards for reward in group if reward is not None}
    count = sum(len(group) for group in rewards)
    if len(known) == 1:
        return (
            f"all {count} answers have the reward {known.pop():g}: nothing is learned; take a grader with finer "
            "scores, or other prompts"
        )
    return (
        f"in each of {len(rewards)} groups all answers have the same reward: nothing is learned; take a grader with "
        "finer scores, or a larger rft.group_size"
    )


def ungraded(grader: str, grades: Sequence[AnswerGrade]) -> str:
    """Say how many answers have no grade, with the first error; nothing where all have one."""
    errors = [grade.error for grade in grades if grade.score is None]
    if not errors:
        return ""
    return (
        f"grader {grader} gave no grade to {len(errors)} of {len(grades)} answers, which are left out: {errors[0]}"
    )  # fmt: skip


def by_length(texts: Sequence[str], rewards: Sequence[float | None]) -> str:
    """Say that the length of answers alone decides their rewards, where it does; else nothing."""
    pairs = [(text, reward) for text, reward in zip(texts, rewards, strict=True) if reward is not None]
    if len(pairs) < TELLING_ANSWERS:
        return ""
    # By both: graders count words or characters, and one is no function of the other.
    for unit, length in (("words", lambda text: len(text.split())), ("characters", len)):
        share = _explained([(length(text), reward) for text, reward in pairs])
        if share >= LENGTH_ALONE:
            return (
                f"the number of {unit} alone decides the reward ({share:.0%} of its variance): the model may learn "
                "that and nothing else; name another grader in evaluation.graders to see what it costs"
            )
    return ""


def _explained(pairs: Sequence[tuple[int, float]]) -> float:
    """Return the share of the variance of rewards that is between lengths, adjusted for the number of lengths."""
    lengths = [list(rewards) for _, rewards in groupby(sorted(pairs), key=lambda pair: pair[0])]
    several = [[reward for _, reward in each] for each in lengths if len(each) > 1]
    every = [reward for each in several for reward in each]
    # A length that occurs once explains its own reward, whatever decides it.
    free = len(every) - len(several)
    total = _squares(every)
    if free < TELLING_ANSWERS // 2 or not total:
        return 0.0
    within = sum(map(_squares, several))
    return 1 - (within / free) / (total / (len(every) - 1))


def _squares(values: Iterable[float]) -> float:
    values = list(values)
    mean = fmean(values) if values else 0.0
    return sum((value - mean) ** 2 for value in values)
