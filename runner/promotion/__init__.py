"""A run's model gets a name that others use, where the evidence says that it is better than what has that name.

keys.py        what is typed: KEY=VALUE
contenders.py  the run, and what holds the alias: its folder, else a copy from MLflow; the base model where nothing does
decision.py    better by its interval, or no worse and cheaper, or refused: pure
cost.py        what an answer of each costs
history.py     the moves of an alias, and where going back leads: pure
evidence.py    what is attached to the model version
promoting.py   all of it in order; tracking/registry.py is MLflow's part
"""
