"""Packs over lanes and ranks: the schedule, the threads, the sharded weights."""
