"""text_similarity has the values of the library that each metric is defined by."""

import random
from collections.abc import Callable

import pytest

from runner.errors import RequestError
from tests.graders.asking import ANSWER, graded, grader, score

WORDS = [
    *("the", "a", "cat", "cats", "sat", "sitting", "on", "mat,", "mat.", "running", "ran", "quickly", "Zürich"),
    *("3.5", "don't", "—", "it's", "Paris!"),
]
PAIRS_PER_METRIC = 1_000


def pairs() -> list[tuple[str, str]]:
    """Return an answer and a reference each, from different to equal, empty ones among them."""
    draw = random.Random(7)
    found = []
    for _ in range(PAIRS_PER_METRIC):
        reference = [draw.choice(WORDS) for _ in range(draw.randrange(15))]
        answer = [word if draw.random() < 0.7 else draw.choice(WORDS) for word in reference]
        found.append((" ".join(answer[draw.randrange(3) :]), " ".join(reference)))
    return found


def fuzzy_match(text: str, reference: str) -> float:
    from rapidfuzz.fuzz import ratio

    return ratio(text, reference) / 100


def bleu(text: str, reference: str) -> float:
    from nltk import wordpunct_tokenize
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    smoothing = SmoothingFunction().method4
    words = wordpunct_tokenize(reference), wordpunct_tokenize(text)
    return float(sentence_bleu([words[0]], words[1], smoothing_function=smoothing, auto_reweigh=True))


def gleu(text: str, reference: str) -> float:
    from nltk import wordpunct_tokenize
    from nltk.translate.gleu_score import sentence_gleu

    return float(sentence_gleu([wordpunct_tokenize(reference)], wordpunct_tokenize(text)))


def meteor(text: str, reference: str) -> float:
    from nltk import wordpunct_tokenize
    from nltk.translate.meteor_score import meteor_score

    class NoWordNet:
        def synsets(self, word: str) -> list[object]:
            return []

    return float(meteor_score([wordpunct_tokenize(reference)], wordpunct_tokenize(text), wordnet=NoWordNet()))


def rouge(kind: str) -> Callable[[str, str], float]:
    from rouge_score.rouge_scorer import RougeScorer

    return lambda text, reference: float(RougeScorer([kind]).score(reference, text)[kind].fmeasure)


@pytest.mark.parametrize(
    ("metric", "library"),
    [
        ("fuzzy_match", fuzzy_match),
        ("bleu", bleu),
        ("gleu", gleu),
        ("meteor", meteor),
        *((f"rouge_{n}", rouge(f"rouge{n}")) for n in (1, 2, 3, 4, 5)),
        ("rouge_l", rouge("rougeL")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_metric_has_its_librarys_value(metric: str, library: Callable[[str, str], float]) -> None:
    made = grader("text_similarity", input=ANSWER, reference="{{ item.answer }}", evaluation_metric=metric)
    scores = [score(made, text, answer=reference) for text, reference in pairs()]
    assert scores == [library(text, reference) for text, reference in pairs()]
    assert all(value is not None and 0 <= value <= 1 for value in scores)
    assert len(set(scores)) > 10


GOLDEN = {
    "fuzzy_match": (0.9302, 0.7556, 0.2778),
    "bleu": (0.2939, 0.1212, 0.0025),
    "gleu": (0.5, 0.2143, 0.0455),
    "meteor": (0.8067, 0.375, 0.0781),
    "rouge_1": (0.8333, 0.4, 0.2857),
    "rouge_2": (0.6, 0.25, 0),
    "rouge_3": (0.25, 0, 0),
    "rouge_l": (0.8333, 0.4, 0.2857),
}


@pytest.mark.parametrize("metric", GOLDEN)
def test_three_pairs_have_known_values(metric: str) -> None:
    made = grader("text_similarity", input=ANSWER, reference="{{ item.answer }}", evaluation_metric=metric)
    found = [
        score(made, "the cat sat on the mat", answer="the cat is on the mat"),
        score(made, "fuzzy wuzzy was a bear", answer="fuzzy wuzzy had no hair"),
        score(made, "Paris", answer="The capital of France is Paris."),
    ]
    assert found == pytest.approx(GOLDEN[metric], abs=5e-5)


@pytest.mark.parametrize("metric", ["fuzzy_match", "bleu", "gleu", "rouge_1", "rouge_l"])
def test_equal_texts_of_one_word_score_1(metric: str) -> None:
    made = grader("text_similarity", input=ANSWER, reference="{{ item.answer }}", evaluation_metric=metric)
    assert score(made, "Paris", answer="Paris") == 1.0


def test_cosine_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(RequestError, match=r"cosine needs an embeddings model.*; allowed: fuzzy_match, bleu"):
        grader("text_similarity", input=ANSWER, reference="x", evaluation_metric="cosine")


def test_a_missing_value_is_an_error_and_no_score() -> None:
    made = grader("text_similarity", input=ANSWER, reference="{{ item.answer }}", evaluation_metric="bleu")
    grade = graded(made, "Paris")
    assert (grade.score, grade.error) == (None, "item.answer is missing")
