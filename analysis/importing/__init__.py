"""Recordings of other tools become traces: one module per source, found by being here.

A source has ``SUMMARY`` (one sentence), ``fits(lines)`` (whether the first lines look like it) and ``read(lines, rows, abi)``,
which gives its rows to a `rows.Rows`.
"""
