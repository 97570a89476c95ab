"""The innermost ring: ids, records, the state table, digests and replay.

Everything here takes values and returns values. Nothing here awaits, opens a file, reads a
clock or draws a random number that it was not handed, but that a batch draws the token that names it.
"""
