"""Is a model good? Prompts are answered, answers are graded, and grades are summed up row by row.

    problems.py      the rows that are asked: held-out ones, or those of files of their own
    configured.py    the graders that a request or a command names
    grading.py       answers graded, one by one, so that what is graded is never graded (or paid for) again
    summary.py       the means that metrics and tables show
    steps.py         the step `grade` of every run
    reward.py        the grader whose score a method learns from
    rehearsal.py     what can be known before anything is paid for: fields that are missing, scores without spread
    models.py        any model that `python -m runner.evaluate` names, as something that answers

Neither the backends nor the graders know this package.
"""
