"""Is a model good? Prompts are answered, answers are graded, and grades are summed up row by row.

    configured.py    the graders that a request or a command names
    grading.py       answers graded, one by one, so that what is graded is never graded (or paid for) again
    summary.py       the means that metrics and tables show
    steps.py         the step `grade` of every run
    on_the_way.py    a grader that decides which weights are kept (`evaluation.keep_by`)
    reward.py        the grader that a model is trained by
    rehearsal/       what can be known before anything is paid for: fields that are missing, scores without spread
    calibration.py   graders compared with people's labels
    benchmark/       benchmarks of lm-evaluation-harness, for `runner.evaluate`
    evaluate.py, requests.py    what `python -m runner.evaluate` does, and is asked for
    models.py        any model that `python -m runner.evaluate` names, as something that answers

Graders do not know this package; of the backends, the local one asks it to grade answers while it trains.
"""
