"""Export a run's model in a form that other programs load, with a proof that it is the same model.

RUN is a run's folder, its name under `runs/`, or the start of its plan id. The rest is KEY=VALUE:

  format=merged        the form, of those below
  quantization=…       how its weights are kept, by default as is said first
  rows=20              held-out rows that the proof asks
  max_new_tokens=64    tokens of an answer that are compared
  engine=vllm          prove it by an engine of runner.serve in place of what
                       the form is made for; program=PATH where it is elsewhere
  check=FOLDER         prove an export that is there already; write nothing
  force=true           keep one that is not the run's model, marked
  license=…            licence of the model, for the model card
  push=hub:ORG/NAME    send it away, after asking; or s3://BUCKET/PATH,
                       abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH
  yes=true             send it without asking

  python -m runner.export dpo-house_style format=gguf quantization=q8_0

The export is loaded by the program made for it, in a process of its own, and asked the held-out prompts: its chat
template and tokenizer have to write the same tokens, the held-out answers need the same log-probabilities within what
the precision costs, it has to stop where the run's model stops, and the greedy answers are compared. What came out
is in export.json; an export that is another model is refused.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runner.errors import ProofError, RequestError
from runner.request.types import PositiveInt
from runner.terminal import cli, console

if TYPE_CHECKING:
    from runner.exporting import carry_out


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The keys of the command."""

    format: str = "merged"
    quantization: str | None = None
    rows: PositiveInt = 20
    max_new_tokens: PositiveInt = 64
    engine: str | None = None
    program: str | None = None
    check: str | None = None
    force: bool = False
    license: str | None = None
    push: str | None = None
    yes: bool = False


def main() -> None:
    """Export, and leave with 0, 1 where the export is refused, 2 for what cannot be exported."""
    cli.main(_export)


def _export(arguments: list[str]) -> None:
    description = f"{(__doc__ or '').rstrip()}\n\n{_forms()}"
    run, asked = cli.run_and_keys("runner.export", description, arguments, Asked)
    from runner.exporting import card, carry_out, destinations
    from runner.serving import engines

    if asked.program and not asked.engine:
        raise RequestError("program: it is an engine's; name that as well, engine=vllm.")
    # As an unset variable of the shell leaves them: the export would not be checked, or not be sent, without a word.
    if empty := [key for key in ("check", "push") if getattr(asked, key) == ""]:
        raise RequestError(f"{empty[0]}: got nothing after the equals sign; name a folder, or leave it out.")
    if asked.check and asked.push:
        raise RequestError("push: with check=FOLDER nothing is sent; leave one of them out.")
    destination = destinations.find(asked.push) if asked.push else None
    engine = engines.load(asked.engine, asked.program) if asked.engine else None
    planned = carry_out.wanted(
        run, asked.format, asked.quantization, asked.rows, asked.max_new_tokens, asked.force, engine
    )
    if asked.check:
        _check(planned, Path(asked.check))
        return
    folder, found = carry_out.export(planned, console.say)
    card.write(planned.run, found, folder, asked.license)
    _show(found)
    console.say(f"{'' if found.proven else 'NOT PROVEN, kept as force=true: '}{folder}")

    if destination and asked.push:
        size = sum(each.stat().st_size for each in folder.rglob("*") if each.is_file())
        if not asked.yes and not cli.agreed(f"Send {size / 1e6:,.1f} MB to {asked.push}? [y/N] "):
            console.say("Nothing was sent.")
            return
        console.say(f"sent: {destination.push(folder, asked.push)}")


def _forms() -> str:
    """Return a line for each form, with what `quantization=` may be."""
    from runner.exporting import formats

    lines = [f"  {name:{20}} {', '.join(formats.load(name).bounds)}" for name in formats.names()]
    return "\n".join(["  format=              quantization=", *lines])


def _check(planned: "carry_out.Wanted", folder: Path) -> None:
    from runner.exporting import carry_out

    found = carry_out.check(planned, folder, carry_out.known(planned), console.say)
    _show(found)
    if not found.proven:
        raise ProofError(f"{folder}: is not the model of {planned.run.folder.name}: {found.proof.refusal}.")


def _show(found: "carry_out.Export") -> None:
    rows = [[each.name, "yes" if each.passed else "NO", each.found, each.allowed] for each in found.proof.checks]
    console.table(f"{found.format} in {found.quantization}, by {found.program}", ["", "same", "found", "allowed"], rows)
    for sentence in found.cost:
        console.say(f"{sentence}.")


if __name__ == "__main__":
    main()
