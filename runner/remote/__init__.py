"""Runs whose engine is a service: our own loop drives training primitives over HTTP.

    engine/        the primitives, each request carried out once, and taken up again after a kill
    backend.py     what such backends have in common: checks, plan, price
    steps.py       a run's steps: prepare, train, save, evaluate, sample, unload

A service is one package in `backends/`: how to reach it, its wire form, its keys and its table of prices.
"""
