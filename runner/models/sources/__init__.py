"""The model sources, one file per scheme; runner/models/source.py says what each has to do."""
