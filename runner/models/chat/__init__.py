"""Turns as tokens: the chat template and tokenizer of a model, which tokens are learned, what a plan checks of that.

    template.py       turns and tools as text, by the template that comes with the model; tool_calls.py its abilities
tokenizer.py      text as tokens; encoder.py many texts at once
row_tokens.py     a row's tokens, and which of them are learned
learned_check.py  what a plan checks of rows as the model sees them; shown_row.py prints them
"""
