"""Texts that are nearly the same are found, each with the first of its kind; what only looks alike is not."""

import random

from hypothesis import given
from hypothesis import strategies as st

from runner.data.quality.near_duplicates import near_duplicates, similarity


def test_copies_that_differ_in_case_punctuation_and_spaces_are_found() -> None:
    texts = [
        "How do I keep bread fresh?",
        "Why is the sky blue?",
        "how do I keep  bread fresh",
        "Why is the sky  blue ?!",
    ]
    assert near_duplicates(texts, 0.9) == {2: 0, 3: 1}


def test_a_word_more_in_a_long_text_is_found_and_another_question_is_not() -> None:
    story = (
        "Ann has a basket with apples and walks through the long street to the market on the other side of the river "
        "where her brother has sold fish and lemons since the old bridge was closed, and she meets a friend "
    )
    texts = [story + "today.", story + "now, today.", "What does a baker do in the morning before the shop opens?"]
    assert near_duplicates(texts, 0.9) == {1: 0}


def test_problems_that_differ_in_a_number_are_not_the_same() -> None:
    texts = [f"A farmer has {number} cows, sells two of them, and buys a pig. How many?" for number in (12, 13, 14)]
    assert near_duplicates(texts, 0.9) == {}


def test_an_instruction_before_each_prompt_makes_no_two_of_them_alike() -> None:
    words = ["river", "soap", "wool", "moon", "bread", "glass", "paper", "salt", "stone", "clock", "bridge", "lemon"]
    start = "You are a patient teacher who answers each question of a child in a few plain and friendly words. Child: "
    texts = [f"{start}What is {word}?" for word in words]
    assert near_duplicates(texts, 0.9) == {}
    assert near_duplicates([*texts, texts[3]], 0.9) == {len(words): 3}


def test_texts_in_other_scripts_and_empty_ones_are_compared_too() -> None:
    assert near_duplicates(["天空为什么是蓝色的?", "天空为什么是蓝色的", "面包怎样保存?", "", ""], 0.9) == {1: 0, 4: 3}


def test_similarity_is_the_share_of_sequences_in_common() -> None:
    assert similarity("Bread.", "bread") == 1.0
    assert similarity("abcdefg", "abcdefx") == 2 / 4  # abcde, bcdef of abcde, bcdef, cdefg, cdefx
    assert similarity("abc", "xyz") == 0.0


@given(st.integers(0, 10_000), st.sampled_from([0.3, 0.5, 0.8, 0.9, 1.0]))
def test_whatever_is_found_is_what_comparing_all_with_all_finds(seed: int, least: float) -> None:
    draw = random.Random(seed)
    texts = ["".join(draw.choices("ab c", k=draw.randint(0, 14))) for _ in range(12)]
    found = near_duplicates(texts, least)
    for place, text in enumerate(texts):
        earlier = [other for other in range(place) if other not in found and similarity(texts[other], text) >= least]
        # With so few texts nothing occurs often enough to be a template.
        assert (place in found) == bool(earlier), (texts, place)
        assert found.get(place, -1) in [*earlier[:1], -1]
