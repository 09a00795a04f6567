"""Is a model good? Prompts are answered, answers are graded, and grades are summed up row by row.

    problems.py      the rows that are asked: held-out ones, or those of files of their own
    configured.py    the graders that a request or a command names
    grading.py       answers graded, one by one, so that what is graded is never graded (or paid for) again
    summary.py       the means that metrics and tables show
    steps.py         the step `grade` of every run
    rehearsal.py     what can be known before anything is paid for: fields that are missing, scores without spread
    base_rehearsal.py, calibration.py    the base model asked before the start; graders beside people's labels
    harness.py, harness_tasks.py, benchmarks.py    benchmarks of lm-evaluation-harness, for `runner.evaluate`
    evaluate.py, requests.py    what `python -m runner.evaluate` does, and is asked for
    models.py        any model that `python -m runner.evaluate` names, as something that answers

Neither the backends nor the graders know this package.
"""
