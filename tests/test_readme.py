"""The README tells the truth about the keys, and no key appears or goes without being noticed."""

from tests import key_table


def test_the_table_of_keys_is_the_codes_own() -> None:
    readme = key_table.README.read_text("utf-8")
    assert readme == key_table.with_table(readme), "run python -m tests.key_table"


def test_every_format_of_the_package_is_in_the_readme() -> None:
    from runner.data import formats
    from runner.request import hydra_config

    readme = key_table.README.read_text("utf-8")
    assert [name for name in hydra_config.options(formats) if f"`{name}`" not in readme] == []
