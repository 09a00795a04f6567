"""A judgement is paid once: over processes, after a kill, whatever was half written."""

import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runner import cache as user_cache
from runner.errors import JudgeError
from runner.judging import cache
from runner.judging.cache import Judgement, Judgements
from runner.judging.client import EndpointJudge
from tests import warm
from tests.emulator import Emulator, Fault
from tests.judging.emulated import JUDGE, messages
from tests.waiting import SECONDS, until

ROOT = Path(__file__).parents[2]
ASKS = """
import os, signal, sys
from concurrent.futures import ThreadPoolExecutor
from runner.judging.client import EndpointJudge
from runner.judging.keys import JudgeKeys

def ask(number):
    answer = judge.ask("gpt-4.1", [{"role": "user", "content": f"question {number}"}], {})
    if number == dies_at:
        os.kill(os.getpid(), signal.SIGKILL)
    return answer

dies_at, questions = int(sys.argv[1]), range(int(sys.argv[2]))
with EndpointJudge(JudgeKeys()) as judge, ThreadPoolExecutor(4 if dies_at < 0 else 1) as pool:
    list(pool.map(ask, questions))
"""


def asking(questions: int, dies_at: int = -1) -> warm.Popen:
    """Start a process that asks so many questions, and is killed as soon as it has the answer to one of them."""
    line = [sys.executable, "-c", ASKS, str(dies_at), str(questions)]
    return warm.Popen(line, env=os.environ | {"PYTHONPATH": str(ROOT)})


@pytest.mark.slow
def test_two_processes_with_the_same_questions_ask_each_once(cloud: Emulator) -> None:
    cloud.inject(Fault(JUDGE, "slow", times=None, seconds=0.05))
    assert [each.wait(SECONDS) for each in [asking(12), asking(12)]] == [0, 0]
    assert len(cloud.judge.paid) == 12
    assert set(cloud.judge.paid.values()) == {1}


@pytest.mark.slow
def test_a_process_killed_as_it_has_an_answer_has_paid_it_for_good(cloud: Emulator) -> None:
    assert asking(4, dies_at=2).wait(SECONDS) == -signal.SIGKILL
    assert len(cloud.judge.paid) == 3
    assert asking(4).wait(SECONDS) == 0
    assert len(cloud.judge.paid) == 4
    assert set(cloud.judge.paid.values()) == {1}


@pytest.mark.slow
def test_a_process_killed_while_it_asks_leaves_no_lock_and_no_half_answer(
    cloud: Emulator, judge: EndpointJudge
) -> None:
    cloud.inject(Fault(JUDGE, "slow", seconds=30))
    process = asking(1)
    until(lambda: cloud.judge.paid, "question", process=process)
    process.kill()
    process.wait(SECONDS)
    assert "the rule says" in judge.ask("gpt-4.1", messages("question 0"), {})


@pytest.mark.parametrize("content", [b"", b'{"text": "half', b"[]", b"\xff"])
def test_an_entry_that_cannot_be_read_is_asked_for_again(cloud: Emulator, judge: EndpointJudge, content: bytes) -> None:
    judge.ask("gpt-4.1", messages("?"), {})
    (entry,) = cache.folder().rglob("*.json")
    entry.write_bytes(content)
    judge.ask("gpt-4.1", messages("?"), {})
    judge.ask("gpt-4.1", messages("?"), {})
    assert list(cloud.judge.paid.values()) == [2]


def test_nothing_but_answers_is_left_in_the_folder(cloud: Emulator, judge: EndpointJudge) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda number: judge.ask("gpt-4.1", messages(str(number % 3)), {}), range(12)))
    files = [path for path in cache.folder().rglob("*") if path.is_file()]
    assert sorted({path.suffix for path in files}) == [".json"]
    assert len(files) == 3


def test_endpoint_model_messages_and_options_each_make_another_question() -> None:
    base = {"model": "a", "messages": messages("?"), "seed": 1}
    others = [{**base, "model": "b"}, {**base, "messages": messages("!")}, {**base, "seed": 2}, {**base, "top_p": 1.0}]
    names = [cache.key("https://one.example/v1", each) for each in (base, *others)]
    names.append(cache.key("https://two.example/v1", base))
    assert len(set(names)) == 6
    assert cache.key("https://one.example/v1", dict(reversed(base.items()))) == names[0], "the order of keys is none"


def test_an_answer_that_could_not_be_had_is_not_kept(tmp_path: Path) -> None:
    judgements = Judgements(tmp_path)

    def fail() -> Judgement:
        raise OSError("the disk is full")

    until = time.monotonic() + 60
    with pytest.raises(OSError, match="full"):
        judgements.get("00", fail, until)
    assert judgements.get("00", lambda: Judgement(text="yes"), until) == (Judgement(text="yes"), True)
    assert judgements.get("00", fail, until) == (Judgement(text="yes"), False)


def test_an_answer_that_another_process_does_not_get_is_given_up_in_time(tmp_path: Path) -> None:
    with user_cache.lock(tmp_path / "00", "00"), pytest.raises(JudgeError, match="another process asks the same"):
        Judgements(tmp_path).get("00", lambda: Judgement(text="yes"), time.monotonic() + 0.1)
