"""The ids are those that transformers and TRL make of the same rows."""

import resource
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from runner.data.kinds.conversation import Conversation
from runner.data.kinds.preference import Pair
from runner.data.kinds.problem import Problem
from runner.data.rows import Message, Row
from runner.errors import DataError, ModelError
from runner.models.chat.tokenizer import ChatTokenizer
from tests import tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tokenizer")
    tiny.make_tokenizer(made)
    return made


text = st.text(st.characters(codec="utf-8", exclude_characters="<"), min_size=1, max_size=40)


@settings(max_examples=50, deadline=None)
@given(question=text, answer=text)
def test_a_rendered_conversation_has_the_ids_of_transformers(folder: Path, question: str, answer: str) -> None:
    from transformers import PreTrainedTokenizerFast

    chat = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    messages = [Message(**message) for message in chat]
    ours = ChatTokenizer(folder)
    theirs = PreTrainedTokenizerFast.from_pretrained(folder).apply_chat_template(chat, tokenize=True, return_dict=False)
    assert ours.encode(ours.render(messages)) == theirs


def test_a_pair_shares_its_prompt_and_each_answer_ends_its_turn(folder: Path) -> None:
    tokenizer = ChatTokenizer(folder)
    row = tokenizer.row(Pair((Message("user", "Hi"),), (Message("assistant", "Yes"),), (Message("assistant", "No"),)))
    assert tokenizer.decode(row.prompt).endswith("assistant\n")
    assert [tokenizer.decode(answer) for answer in row.answers] == ["Yes\n", "No\n"]
    assert all(2 in answer for answer in row.answers)


rows = st.builds(
    lambda question, good, bad: Pair(
        (Message("user", question),), (Message("assistant", good),), (Message("assistant", bad),)
    ),
    *[text] * 3,
)


@settings(max_examples=50, deadline=None)
@given(st.lists(rows | rows.map(Conversation.of), max_size=5))
def test_rows_counted_together_have_the_tokens_of_their_longest_prompt_and_answer(
    folder: Path, together: list[Pair | Conversation]
) -> None:
    tokenizer = ChatTokenizer(folder)
    single = [tokenizer.row(row) for row in together]
    assert tokenizer.counts(together, at_most=1000) == [
        len(row.prompt) + max(len(answer) for answer in row.answers) for row in single
    ]


def test_a_very_long_text_is_counted_until_it_is_over_the_limit_in_little_memory(folder: Path) -> None:
    tokenizer, answer = ChatTokenizer(folder), Message("assistant", "Wrap it in cloth. " * 500_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert tokenizer.counts([Conversation((Message("user", "Why?"), answer))], at_most=100) == [101]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10  # whole it takes 2 GB


@pytest.mark.parametrize("words", [3, 30, 300])
def test_a_text_of_few_tokens_per_character_is_counted_to_its_end(tmp_path: Path, words: int) -> None:
    word = "scatters" * 10
    tokenizer = Tokenizer(WordLevel({"?": 0, word: 1}, unk_token="?"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0]['content'] }}", "utf-8")
    row = Conversation((Message("user", f" {word}" * words),))
    assert ChatTokenizer(tmp_path).counts([row], at_most=words) == [words]


def test_a_row_that_the_chat_template_refuses_is_a_sentence(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    (tmp_path / "chat_template.jinja").write_text("{{ raise_exception('roles must alternate') }}", "utf-8")
    with pytest.raises(DataError) as caught:
        ChatTokenizer(tmp_path).render([Message("user", "Hi"), Message("user", "So?")])
    assert str(caught.value) == (
        f"{tmp_path.name}: the model's chat template refuses a row with the turns user, user (roles must alternate); "
        "change or remove such rows, or choose another model."
    )


def test_only_the_assistants_own_turns_are_learned_and_weight_zero_is_left_out(folder: Path) -> None:
    tokenizer = ChatTokenizer(folder)
    turns = (Message("user", "a"), Message("assistant", "b", weight=0), Message("user", "c"), Message("assistant", "d"))
    row = tokenizer.row(Conversation(turns))
    learned = [token for token, wanted in zip(row.answers[0], row.learned[0], strict=True) if wanted]
    assert tokenizer.decode(learned) == "d\n"
    all_turns = tokenizer.row(Conversation(tuple(Message(turn.role, turn.content) for turn in turns)))
    learned = [token for token, wanted in zip(all_turns.answers[0], all_turns.learned[0], strict=True) if wanted]
    assert tokenizer.decode(learned) == "b\nd\n"


def test_a_long_row_is_cut_at_its_end_and_one_whose_prompt_fills_the_limit_is_refused(folder: Path) -> None:
    tokenizer = ChatTokenizer(folder)
    pair = Pair((Message("user", "Hi"),), (Message("assistant", "Yes " * 30),), (Message("assistant", "No"),))
    whole = tokenizer.row(pair)
    cut = tokenizer.row(pair, len(whole.prompt) + 5)
    assert cut.answers[0] == whole.answers[0][:5]
    with pytest.raises(DataError, match=r"the prompt alone fills backend\.max_length"):
        tokenizer.row(pair, len(whole.prompt))


def test_a_model_without_a_template_is_refused_with_the_way_out(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    with pytest.raises(ModelError, match="the model has no chat template; choose an instruction-tuned model"):
        ChatTokenizer(tmp_path).render([Message("user", "Hi")])


def test_a_prompt_alone_has_all_its_tokens_and_nothing_learned(tiny_model: Path) -> None:
    tokenizer = ChatTokenizer(tiny_model)
    problem = Problem((Message("user", "Why is the sky blue?"),))
    row = tokenizer.row(problem)
    assert row.prompt == tokenizer.encode(tokenizer.render(problem.question))
    assert (row.answers, row.learned) == (([],), ([],))
    assert tokenizer.total(problem) == len(row.prompt)


def test_prompts_are_counted_up_to_the_first_learned_answer(tiny_model: Path) -> None:
    tokenizer = ChatTokenizer(tiny_model)
    question, answer = Message("user", "How do I keep bread fresh?"), Message("assistant", "In cloth.")
    skipped = Message("assistant", "Who knows.", weight=0)
    rows: list[Row] = [
        Pair((question,), (answer,), (skipped,)),
        Conversation((question, answer)),
        Conversation((question, skipped, question, answer)),
    ]
    whole = [
        len(tokenizer.encode(tokenizer.render(turns, answer_next=True)))
        for turns in ((question,), (question,), (question, skipped, question))
    ]
    assert tokenizer.prompt_counts(rows, 1000) == whole
    assert tokenizer.prompt_counts(rows, 5) == [6, 6, 6]
