"""What is typed becomes keys, or a sentence with the key, what was found and what is allowed."""

import pytest

from runner.errors import RequestError
from runner.promotion.keys import Keys, parse


def test_keys_are_read_as_they_are_typed() -> None:
    found = parse(["as=candidate", "no_worse_than=0.02", "to=3", "back=true", "metric=null"])
    assert found == Keys(alias="candidate", no_worse_than=0.02, to=3, back=True)
    assert parse([]).alias == "champion"


@pytest.mark.parametrize(
    ("line", "reported"),
    [
        ("no_worse_then=1", "no_worse_then: no such key; did you mean no_worse_than? allowed: as, name,"),
        ("no_worse_than=-1", "no_worse_than: got '-1'; allowed: a number > 0 or null."),
        ("as=a b", "as: got 'a b'; allowed: text like"),
        ("as=v1", "as: got v1, which means a version in MLflow; take a name such as champion."),
        ("name=a/b", "name: got 'a/b'; allowed: text like"),
        ("name=", "name: got ''; allowed: text like"),
        ("to=2", "promote: to: goes with back=true; leave the others out."),
        ("back=true history=true", "promote: back, history: one at a time; leave the others out."),
        ("back=perhaps", "back: got 'perhaps'; allowed: true or false."),
    ],
)
def test_a_wrong_key_is_said_in_a_sentence(line: str, reported: str) -> None:
    given = [line] if line.startswith("as=") else line.split()
    with pytest.raises(RequestError) as error:
        parse(given)
    assert str(error.value).startswith(reported)
