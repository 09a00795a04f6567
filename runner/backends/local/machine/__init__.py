"""This machine: its hardware, how fast it is, and where a step's time goes."""
