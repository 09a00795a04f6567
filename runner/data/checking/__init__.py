"""The check of the rows of a selection, block by block, where there are many by several processes."""
