"""Answers of the model's own, graded and learned from while it trains: what a method that is `graded` needs.

    sampled.py     answers as they are kept, a folder for each rollout, so that none is sampled or graded twice
    rollouts.py    prompts of a step answered, graded, and turned into a batch: the loop's `Batches`
    learning.py    graded answers as what a loss is a function of
    held_out.py    held-out prompts answered and graded: the loop's `HeldOut`
    signals.py     what rewards say of a training: their figures, and sentences for what is wrong

It knows no engine but the contract (runner/training/engine.py): whatever samples and learns, the rest is the same.
"""
