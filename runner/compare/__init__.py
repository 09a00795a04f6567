"""Runs side by side, and a winner one can trust.

results.py      what a run's folder says of it; runs that differ in their seed only are one variant
difference.py   two variants on the same held-out rows: how far apart, how sure
verdict.py      all of them: the table, who is best, what can be told; as JSON, Markdown, a page
drawing.py      curves over the steps, the metric over what was swept
output.py       where it goes; __main__.py is the command
"""
