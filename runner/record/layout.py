"""The names of the files that a run, an evaluation or a sweep leaves in its folder, for whoever reads or writes them.

No other module spells them; `python -m tests.house` says so. They are what users, scripts and older runs' folders
rely on: a new name needs a reader of the old one.
"""

JOURNAL = "journal.jsonl"
"""The events of a run, from which everything else is derived."""
PLAN, REQUEST = "plan.json", "request.json"
"""What a run does, in canonical form, and what was asked for."""
REPORT, REPORT_PAGE, REPORT_HTML = "report.json", "report.md", "report.html"
"""The outcome of a run; the pages are for people."""
SURVEY = "survey.json"
"""What the check of the data found."""
EXTERNAL = "model.json"
"""Of a logged model in MLflow that lives at a service: what it is called there."""
EXPORT, PROMOTION = "export.json", "promotion.json"
"""The proof that an export is the same model; of a promoted version, what it was compared with and the outcome."""
OWNER, LOCK = "owner.json", ".lock"
"""The process that works on a run, for others to name, and the lock that it holds."""
TRACKING = "tracking.json"
"""How much of a run MLflow has."""

OUTPUT = "output.log"
"""What the process of a run has printed that an agent has started."""

MODEL = "model"
"""The folder with the model that a run has made."""
REFERENCE, HOSTED = "reference.json", "hosted.json"
"""In `MODEL`: the base model, its adapters, and a digest of the weights; of a hosted run the model's name there."""
REMOTE, LEDGER, REFERENCE_LOGPS = "remote.json", "ledger.jsonl", "reference.npz"
"""Of a run at a remote engine: in `MODEL` where its result is; its requests; the reference's log-probabilities."""
CHECKPOINTS, CACHE = "checkpoints", "cache"
"""The folder of a local run's checkpoints; that of its rows and tokens where the user's cache cannot be written to."""
ROWS = {"train": "train.jsonl", "validation": "validation.jsonl"}
"""The rows of each split as a hosted run has sent them."""
PROFILE, TRACE = "profile.md", "trace.json.gz"
"""Where the time went, with `backend.profile=true`."""
EXPORTS, EXPORT, CARD, QUESTIONS = "exports", "export.json", "README.md", "questions.json"
"""In a run's folder: a folder for each export; in it its proof and its card; next to them what the run's model says."""

HELD_OUT = "evaluation.jsonl"
"""The held-out rows one by one: the loss and the other metrics of each."""
IN_STYLE = "in_style.jsonl"
"""Which answers are in the taught style; written by earlier versions, where no grader said so."""
SAMPLES = "samples.json"
"""Prompts with the first answer of both models, for people."""
PROBLEMS, ANSWERS, GRADES = "problems.jsonl", "answers.jsonl", "grades.jsonl"
"""What models were asked, all their answers, and what graders said of them (graded.py)."""
FORMER_GRADES = "former_grades.jsonl"
"""Next to these: grades of graders and answers that are not asked for any more."""
CHECKPOINT_GRADES = "checkpoint_grades"
"""In a run's folder: answers and grades on the way, a folder for each evaluation, with `evaluation.keep_by`."""
ROLLOUTS, SAMPLED, COMPARED = "rollouts", "sampled.jsonl", "reference_logps.json"
"""In a run's folder: a folder for each rollout, with the answers that are learned from, their grades, and where
`rft.beta` asks for it the base model's log-probabilities of their tokens.
"""
EVALUATION, BENCHMARKS = "evaluation.json", "harness.json"
"""In an evaluation's folder, next to these three: its models, its graders, how each did; results of benchmarks."""

SWEEP, SUMMARY, STUDY = "sweep.json", "summary.json", "study.log"
"""In a sweep's folder: its trials, their comparison, and what Optuna knows of a search."""
