"""How alike two texts are, 0 to 1, by a named metric of a named library.

Which scorer, tokens and smoothing the service uses is not documented, so each metric has its own definition here, in
words in docs/graders.md. The packages come with the extra `graders`; they are imported when a row is graded.
"""

from collections.abc import Callable, Iterable
from functools import cache
from importlib.util import find_spec
from typing import ClassVar, Literal, get_args

from runner.graders import Grade, Subject, templates
from runner.graders.templates import Templated

Metric = Literal[
    "cosine", "fuzzy_match", "bleu", "gleu", "meteor", "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l"
]


class TextSimilarity(Templated, frozen=True, kw_only=True):
    """Compares `input` with `reference`, both templates, by `evaluation_metric`."""

    type: ClassVar[str] = "text_similarity"
    hosted: ClassVar[bool] = True

    input: str
    reference: str
    evaluation_metric: Metric

    def templates(self) -> Iterable[str]:
        """Return both texts."""
        return (self.input, self.reference)

    def problems(self) -> Iterable[str]:
        """Return what is wrong with the templates and the metric, a missing package among it."""
        yield from super().problems()
        metric = self.evaluation_metric
        if metric == "cosine":
            allowed = ", ".join(each for each in get_args(Metric) if each != "cosine")
            yield f"evaluation_metric: cosine needs an embeddings model, which is not asked here; allowed: {allowed}."
        elif find_spec(package := _package(metric)) is None:
            yield f"evaluation_metric: {metric} needs the package {package}; pip install 'runner[graders]'."

    def grade(self, subject: Subject) -> Grade:
        """Return the similarity of the two texts."""
        try:
            text, reference = (templates.render(each, subject) for each in self.templates())
        except templates.MissingValueError as error:
            return Grade(None, error=str(error))
        score = _metric(self.evaluation_metric)(text, reference)
        return Grade(score, f"{self.evaluation_metric} {score:.3f}")


def _package(metric: str) -> str:
    return {"fuzzy_match": "rapidfuzz", "bleu": "nltk", "gleu": "nltk", "meteor": "nltk"}.get(metric, "rouge_score")


@cache
def _metric(name: str) -> Callable[[str, str], float]:
    """Return a function of a text and its reference."""
    if name == "fuzzy_match":
        from rapidfuzz import fuzz

        # 0 to 100 there.
        return lambda text, reference: fuzz.ratio(text, reference) / 100
    if name.startswith("rouge"):
        from rouge_score.rouge_scorer import RougeScorer

        # The package's own names: rouge1 … rouge5, rougeL.
        kind = name.replace("rouge_", "rouge").replace("rougel", "rougeL")
        scorer = RougeScorer([kind])
        return lambda text, reference: float(scorer.score(reference, text)[kind].fmeasure)
    return _of_words(name)


def _of_words(name: str) -> Callable[[str, str], float]:
    """Return one of nltk's metrics, over words and punctuation as `wordpunct_tokenize` parts them.

    That is the tokenizer of nltk nearest to `word_tokenize`, which needs data from the network.
    """
    from nltk.tokenize import wordpunct_tokenize as tokens

    if name == "bleu":
        from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

        smooth = SmoothingFunction().method4
        return lambda text, reference: float(
            # auto_reweigh: without it, equal texts of fewer than four words would not score 1.
            sentence_bleu([tokens(reference)], tokens(text), smoothing_function=smooth, auto_reweigh=True)
        )
    if name == "gleu":
        from nltk.translate.gleu_score import sentence_gleu

        return lambda text, reference: float(sentence_gleu([tokens(reference)], tokens(text)))
    from nltk.translate.meteor_score import single_meteor_score

    without = _NoSynonyms()
    return lambda text, reference: float(single_meteor_score(tokens(reference), tokens(text), wordnet=without))


class _NoSynonyms:
    """Replaces WordNet in nltk's METEOR, so that it works offline: words match by spelling and by stem only."""

    def synsets(self, word: str) -> list[object]:
        """Return no synonyms."""
        return []


GRADER = TextSimilarity
