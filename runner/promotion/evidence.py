"""What is attached to a model version, in its folder `evidence`: comparison, plan, report, proof of an export."""

import shutil
from pathlib import Path

from runner.compare import output
from runner.compare.verdict import difference_as_json
from runner.promotion.decision import Decision
from runner.record import layout
from runner.record.files import write_json

FOLDER = "evidence"
COPIED = (layout.PLAN, layout.REPORT, layout.REPORT_HTML, layout.ANSWERS, layout.GRADES)


def write(folder: Path, run: Path, name: str, version: str, decision: Decision) -> None:
    """Write the evidence for a version into `folder/evidence`."""
    to = folder / FOLDER
    output.write(decision.comparison, to)
    # Small files only: the model itself is next to them.
    for each in COPIED:
        if (run / each).exists():
            shutil.copy(run / each, to)
    # An export may be in a folder of its own; each proof keeps the name of that.
    for proof in sorted(run.rglob(layout.EXPORT)):
        place = proof.relative_to(run).parent
        (to / place).mkdir(parents=True, exist_ok=True)
        shutil.copy(proof, to / place)
    content = {"model": name, "version": version, "run": run.name, "why": decision.why}
    write_json(to / layout.PROMOTION, content | {"difference": difference_as_json(decision.difference)})
