"""Runs side by side, and a winner one can trust.

results.py      what a folder says of a run, or of the models of an evaluation; runs that differ in their seed only are
                one variant
interval.py     how sure a mean difference over rows is: pure numbers
difference.py   two variants on the same held-out rows; several differences corrected for being several
sentences.py    a difference in words
verdict.py      all of them: the table, who is best, what is significant; as JSON and Markdown
models.py       the models of one folder, each against the first
rows.py         answers row by row side by side; page.py is the page
drawing.py      curves over the steps, the metric over what was swept
output.py       where it goes; __main__.py is the command
"""
