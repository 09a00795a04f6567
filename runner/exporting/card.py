"""The model card of an export, in the Hugging Face hub's form: what it is made of, how good it is, how it is loaded."""

import json
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from runner import models
from runner.evaluation import configured
from runner.exporting import formats
from runner.models import model_reference
from runner.plan import Run
from runner.record import layout, outcome

if TYPE_CHECKING:
    from runner.exporting.carry_out import Export

UNKNOWN = "not known here; see the base model's own page"
_NAMED = ("license", "license_name", "license_link")
"""Keys of a card's head; the last two where a licence has a name of its own, `license: other`.

Source: https://huggingface.co/docs/hub/model-cards#model-card-metadata
"""


def write(run: Run, export: "Export", folder: Path, licence: str | None) -> None:
    """Write the card into an export's folder; `licence` is the tuned model's, where it was given."""
    from huggingface_hub import ModelCard, ModelCardData

    source, hub = run.plan.model.source, run.plan.model.source.removeprefix("hf:")
    data = ModelCardData(
        base_model=hub.partition("@")[0] if hub != source else None,
        license=licence,
        library_name=formats.load(export.format).library,
        pipeline_tag="text-generation",
        tags=["runner", run.plan.method, *(["not-proven"] if not export.proven else [])],
    )
    content = f"---\n{data.to_yaml()}\n---\n\n{text(run, export, licence)}"
    ModelCard(content).save(folder / layout.CARD)


def text(run: Run, export: "Export", licence: str | None) -> str:
    """Return the card without its head."""
    plan, report, base = run.plan, outcome.read(run.folder) or {}, _base(run)
    metrics = report.get("metrics", {})
    measured = [[name, f"{value:.4g}"] for name, value in sorted(metrics.items()) if name.startswith("eval/")]
    graders = [each.name for each in configured.of_request(run.request)]
    # Fingerprints in place of names: a path or a file's name may say more than is to be given away.
    checks, train, held_out = export.proof.checks, plan.train, plan.validation
    return "\n".join(
        [
            f"# {run.folder.name}, as {export.format} in {export.quantization}",
            "",
            *([] if export.proven else ["**Not proven to be the run's model; kept because that was asked for.**", ""]),
            f"- base model: `{_named(plan.model.source)}`, digest `{plan.model.digest[:12]}`",
            f"- licence of the base model: {licence_of(models.cached(base)) or UNKNOWN}",
            f"- licence of this model: {licence or 'not stated'}",
            f"- method: {plan.method}, on {train.rows:,} rows with the fingerprint `{train.fingerprint[:12]}`",
            *([f"- held out: {held_out.rows:,} rows, `{held_out.fingerprint[:12]}`"] if held_out else []),
            f"- plan: `{plan.id}`",
            f"- graders: {', '.join(graders) or 'none'}",
            "",
            "## How good it is",
            "",
            *(f"- {sentence}." for sentence in report.get("graded", [])),
            *(f"- of this form: {sentence}." for sentence in export.cost),
            "",
            *_table(["metric, of the run", "value"], measured),
            "## That it is the run's model",
            "",
            f"Loaded by {export.program}, asked {export.proof.rows} {export.split} rows; all numbers: `export.json`.",
            "",
            *_table(
                ["", "same", "found", "allowed"],
                [[each.name, _sign(each.passed), each.found, each.allowed] for each in checks],
            ),
            "## How it is loaded",
            "",
            "```",
            formats.load(export.format).usage(run.folder.name, base),
            "```",
            "",
        ]
    )  # fmt: skip


def _base(run: Run) -> str:
    """Return the source of the model that all adapters lie upon, where a run has started from another run."""
    return model_reference.demand(run.folder / layout.MODEL, run.folder.name).base.source


def licence_of(folder: Path | None) -> str | None:
    """Return what the card in a model's folder, else its configuration, says its licence is; None where none does."""
    from huggingface_hub.repocard import metadata_load
    from yaml import YAMLError  # the hub's client brings it

    found: dict[str, object] = {}
    if folder is not None and (folder / "config.json").exists():
        found = json.loads((folder / "config.json").read_bytes())
    if folder is not None and (folder / layout.CARD).exists():
        # A card that is no YAML is somebody else's mistake, and no reason to have no export.
        with suppress(ValueError, YAMLError):
            found |= metadata_load(folder / layout.CARD) or {}
    return ", ".join(str(found[key]) for key in _NAMED if found.get(key)) or None


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return []
    return ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]] + [""]


def _named(source: str) -> str:
    """Return a base model's source for others to read: of a folder its name alone, without the path to it."""
    scheme, _, rest = source.partition(":")
    return f"{scheme}:{Path(rest).name}" if scheme == "path" else source.partition("@sha256")[0]


def _sign(passed: bool) -> str:
    return "yes" if passed else "no"
