"""Rows made by a model and a grader: `python -m runner.pairs`.

making.py     its keys, and the evaluation that they ask for: prompts answered several times, answers graded
choosing.py   of each prompt the best answer against the worst, and the best alone; pure
card.py       what is written: pairs, best answers, and how they were made
"""
