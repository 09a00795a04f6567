"""Print the JSON schema of requests, by which editors complete and check YAML.

  python -m runner.schema                of experiments/*.yaml, and of conf/
                                         where a file sets keys of a request
  python -m runner.schema dataset        of conf/dataset/*.yaml; likewise model,
                                         evaluation, tracking, grader
  python -m runner.schema --to .vscode   writes all, and prints the settings of
                                         VS Code's YAML extension

It is made from the declarations of the keys, methods, backends and graders that are installed, your own among them.
"""

import sys
from pathlib import Path

import msgspec

from runner.record import files
from runner.request import schema
from runner.terminal import cli, console


def main() -> None:
    """Print a schema, or write all, and leave with 0, or 2 for one that does not exist."""
    cli.main(_schema)


def _schema(arguments: list[str]) -> None:
    parser = cli.parser("runner.schema", __doc__)
    # Not `%(default)s`: options and positionals in any order leave a positional without one while help is printed.
    parser.add_argument(
        "name", nargs="?", default="request", choices=schema.names(), metavar="NAME", help="which; request"
    )
    parser.add_argument("--to", type=Path, metavar="FOLDER", help="write all of them as FOLDER/NAME.schema.json")
    asked = parser.parse_args(arguments)
    if asked.to is None:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(schema.of(asked.name))).decode() + "\n")
        return
    # A file for each, as the setting of an editor names files.
    asked.to.mkdir(parents=True, exist_ok=True)
    for name in schema.names():
        files.write_json(asked.to / f"{name}.schema.json", schema.of(name))
    console.say("settings.json of VS Code, with the extension redhat.vscode-yaml:")
    console.say()
    console.say(msgspec.json.format(msgspec.json.encode({"yaml.schemas": settings(asked.to)})).decode())


def settings(folder: Path) -> dict[str, list[str]]:
    """Return which files each schema in a folder is for, as the setting `yaml.schemas` says it."""
    # Files that set keys of a whole request (`# @package _global_`), then a group's own.
    whole = ["experiments/*.yaml", *(f"conf/{group}/*.yaml" for group in ("method", "backend", "mode"))]
    found = {name: whole if name == "request" else [f"conf/{name}/*.yaml"] for name in schema.names()}
    return {f"{folder.as_posix()}/{name}.schema.json": places for name, places in found.items()}


if __name__ == "__main__":
    main()
