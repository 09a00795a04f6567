"""Checks of rows that were read: what cannot be trained on, and what is seldom meant."""
