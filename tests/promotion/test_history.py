"""Going back leads to the version before, past what one has come back from."""

import pytest

from runner.promotion.history import Move, before


def moves(text: str) -> list[Move]:
    """Return moves: `1` promotes version 1, `<1` goes back to it."""
    return [Move(at=0.0, version=each.lstrip("<"), back=each.startswith("<")) for each in text.split()]


@pytest.mark.parametrize(
    ("text", "holder", "found"),
    [
        ("1", "1", None),
        ("1 2", "2", "1"),
        ("1 2 3 <2", "2", "1"),
        ("1 2 3 <2 <1", "1", None),
        ("1 2 <1 3", "3", "1"),
        ("1 2 1", "1", "2"),
        ("1 2 3 <1", "1", None),
        ("1 2", "9", "2"),
        ("", "9", None),
    ],
)
def test_the_version_before_is_that_from_which_the_holder_took_over(text: str, holder: str, found: str | None) -> None:
    assert before(moves(text), holder) == found


def test_an_alias_that_another_process_has_just_moved_is_not_moved(database: str) -> None:
    from runner.errors import ServiceError
    from runner.tracking.registry import opened

    with opened(database) as registry:
        client = registry.client
        client.create_registered_model("raced")
        for _ in range(2):
            client.create_model_version("raced", "file:///nowhere", None)
        registry.move("raced", "champion", Move(at=1.0, version="1"))
        with pytest.raises(ServiceError, match=r"raced@champion: was moved meanwhile, to version 1; give the same"):
            registry.move("raced", "champion", Move(at=2.0, version="2"))
        assert [each.version for each in registry.moves("raced", "champion")] == ["1"]
