"""A run's model in forms that other programs load, each proven to be that model before it is given away.

formats/        one exporter a file: peft, merged, gguf
programs/       what loads them, in a process of its own: transformers with peft, llama.cpp, vLLM
by_engine.py    a program that is an engine's server, asked over HTTP
exporter.py     the contract of an exporter, the bound on what a precision costs, and the model it is given
evidence.py     what is asked, and what a program said
reference.py    what the run's own model says, kept in the run's folder
proof.py        both compared: pure
carry_out.py    written, proven, put in its place
quantized.py    what a quantised form costs in the run's own graders
card.py         the model card; destinations/ where an export is sent

A new form is a module in `formats/`, and where nothing loads it yet one in `programs/`.
"""
