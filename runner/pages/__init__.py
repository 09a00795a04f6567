"""Pages that explain themselves: one file each, that loads nothing, for light and dark, phone and print.

base.py     the frame, the style, and rows side by side, for all pages
curves.py   curves over the steps as inline drawings
run.py      the page of a run; that of a comparison is runner/compare/page.py
"""
