"""What can be known of graders before anything is trained or paid for.

tried.py        fields that no row has, and how graders score the answers that the data has
base_model.py   how the base model does: its pass rate, and whether its answers to one prompt differ
rehearsed.py    what came of it, as a plan shows it
"""
