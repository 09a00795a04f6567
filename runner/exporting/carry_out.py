"""An export made: written next to its place, proven by the program made for it, and only then put there."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import file_digest
from pathlib import Path

import msgspec
from filelock import Timeout

from runner import __version__, cache, planning
from runner.errors import ProofError, RequestError
from runner.exporting import formats, programs
from runner.exporting.exporter import Bound, Exporter, RunModel
from runner.exporting.programs import Program
from runner.exporting.proof import Proof, prove
from runner.exporting.quantized import cost
from runner.exporting.reference import Reference, folder_of, reference
from runner.plan import Run
from runner.record import layout
from runner.record.files import read_kept, write_json
from runner.serving.engines import Engine

Say = Callable[[str], None]


class Export(msgspec.Struct, frozen=True):
    """What `export.json` says of an export."""

    plan_id: str
    digest: str
    """Of the run's weights."""
    format: str
    quantization: str
    runner: str
    program: str
    """What loaded it, with versions."""
    proven: bool
    """Whether it is the run's model, within the bound; False only with `force=true`."""
    split: str
    """The rows that were asked: `validation`, or `train` where the run holds none out."""
    proof: Proof
    files: dict[str, str] = {}
    """The sha256 of each file, without the card's and this one's."""
    cost: list[str] = []
    """What a quantised form costs in the run's own graders, in sentences."""
    replies: list[list[str]] = []
    """The prompts' answers that differ: the run's and the export's."""


@dataclass(frozen=True)
class Wanted:
    """What is to be exported, and how it is asked."""

    run: Run
    exporter: Exporter
    program: Program
    """What loads it for the proof."""
    quantization: str
    rows: int
    max_new_tokens: int
    force: bool = False

    @property
    def folder(self) -> Path:
        """Where the export is kept."""
        return folder_of(self.run.folder, self.exporter.name, self.quantization)

    @property
    def bound(self) -> Bound:
        """How far it may be from the run's model."""
        return self.exporter.bounds[self.quantization]


def wanted(
    folder: Path, form: str, quantization: str | None, rows: int, max_new_tokens: int, force: bool,
    engine: Engine | None = None,
) -> Wanted:  # fmt: skip
    """Return what is asked for; `engine` is to prove it in place of the program that the form is made for.

    Raises `RequestError` for a form or a precision that there is not, and an engine that loads another form.
    """
    exporter = formats.load(form)
    quantization = quantization or next(iter(exporter.bounds))
    if quantization not in exporter.bounds:
        allowed = ", ".join(exporter.bounds)
        raise RequestError(f"quantization: got {quantization} with format={form}; allowed: {allowed}.")
    if engine and engine.form != form:
        raise RequestError(f"engine: {engine.name} loads format={engine.form}, got {form}; leave engine= out.")
    program = programs.load(engine.name if engine else exporter.program, engine)
    program.demand()  # before the weights are written, which may take minutes
    return Wanted(planning.load(folder), exporter, program, quantization, rows, max_new_tokens, force)


def export(asked: Wanted, say: Say) -> tuple[Path, Export]:
    """Return the folder of a proven export and what proves it; made now, or found there from before.

    Raises `ProofError` where it is not the run's model; with `force` it is kept, marked as not proven.
    """
    with _alone(asked.folder, say):
        model = RunModel(asked.run.folder)
        kept = read_kept(asked.folder / layout.EXPORT, Export)
        answers = known(asked, model)
        # The content, too: what was edited or half copied since is written again.
        if kept is not None and _written(kept, asked, answers):
            if _fits(kept, asked, answers):
                return asked.folder, kept
            if (found := _proven_again(kept, asked, answers, say)) is not None:
                return asked.folder, found
        return asked.folder, _made(asked, model, answers, say)


@contextmanager
def _alone(folder: Path, say: Say) -> Iterator[None]:
    """Let one process at a time write an export: a second one would remove the draft of the first."""
    lock = cache.lock(folder.parent, f".{folder.name}")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        say(f"another process writes {folder}; waiting for it …")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _made(asked: Wanted, model: RunModel, answers: Reference, say: Say) -> Export:
    # Next to its place, so that putting it there is one rename.
    draft = asked.folder.with_name(f".{asked.folder.name}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        say(f"writing {asked.exporter.name} in {asked.quantization} …")
        asked.exporter.write(model, draft, asked.quantization)
        model.release()
        found = check(asked, draft, answers, say)
        if not found.proven and not asked.force:
            raise ProofError(
                f"{asked.run.folder.name}: refused, the export in {asked.exporter.name} is not the run's model: "
                f"{found.proof.refusal}; force=true keeps it, marked."
            )
        if asked.quantization in asked.exporter.quantized:
            say("asking the run's graders what it costs …")
            identity = f"{found.digest} {found.format} {found.quantization} {found.program}"
            found = msgspec.structs.replace(found, cost=cost(asked.run, draft, asked.exporter.program, identity))
        found = msgspec.structs.replace(found, files=_digests(draft))
        write_json(draft / layout.EXPORT, found)
        shutil.rmtree(asked.folder, ignore_errors=True)
        draft.rename(asked.folder)
    finally:
        # Refused, failed or stopped: a folder that looks like an export and is none must not be left.
        shutil.rmtree(draft, ignore_errors=True)
    return found


def known(asked: Wanted, model: RunModel | None = None) -> Reference:
    """Return what the run's own model says. Raises `DataError` where the run has no row that can be asked."""
    return reference(asked.run, model or RunModel(asked.run.folder), asked.rows, asked.max_new_tokens)


def check(asked: Wanted, folder: Path, known: Reference, say: Say) -> Export:
    """Let the program made for it load the export in a folder, and return how it compares with the run's model.

    Raises `RequestError` where there is no such folder: a program would ask a hub for a model of that name.
    """
    if not folder.is_dir():
        raise RequestError(f"check: {folder} is no folder; name one with an export in it.")
    program = asked.program
    say(f"asking it {len(known.asked.prompts)} {known.split} prompts by {program.version()} …")
    said = program.evidence(folder, known.asked)
    proof = prove(known.asked, known.run, known.base, said, asked.bound)
    differing = [list(each) for each in zip(known.run.replies, said.replies, strict=True) if each[0] != each[1]]
    return Export(
        plan_id=asked.run.plan.id, digest=known.digest, format=asked.exporter.name, quantization=asked.quantization,
        runner=__version__, program=program.version(), proven=proof.holds, split=known.split, proof=proof,
        replies=differing,
    )  # fmt: skip


def _digests(folder: Path) -> dict[str, str]:
    """Return the sha256 of each file of an export by its name."""
    found = {}
    for path in sorted(each for each in folder.rglob("*") if each.is_file()):
        if path.name not in (layout.EXPORT, layout.CARD):
            with path.open("rb") as file:
                found[path.relative_to(folder).as_posix()] = file_digest(file, "sha256").hexdigest()
    return found


def _proven_again(kept: Export, asked: Wanted, known: Reference, say: Say) -> Export | None:
    """Return what another program says of what is there, or to other rows; None where it is to be made again."""
    # What a quantised form costs is another program's, too.
    if not kept.proven or asked.quantization in asked.exporter.quantized:
        return None
    found = check(asked, asked.folder, known, say)
    if not found.proven:
        return None
    found = msgspec.structs.replace(found, files=kept.files)
    write_json(asked.folder / layout.EXPORT, found)
    return found


def _written(kept: Export, asked: Wanted, known: Reference) -> bool:
    """Say whether what is there is what our version has made of the same weights."""
    same = (kept.digest, kept.runner) == (known.digest, __version__)
    return same and kept.files == _digests(asked.folder)


def _fits(kept: Export, asked: Wanted, known: Reference) -> bool:
    """Say whether it was proven by the same program, with as many rows."""
    same = (kept.proof.rows, kept.program) == (len(known.asked.scored), asked.program.version())
    return same and (kept.proven or asked.force)
