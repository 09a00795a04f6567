"""Judges: models behind an OpenAI-compatible endpoint that grade answers; what they cost, and how far to trust them."""
