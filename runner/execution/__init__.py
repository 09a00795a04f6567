"""Execution: one request planned and run, step by step, resumed where it stopped."""
