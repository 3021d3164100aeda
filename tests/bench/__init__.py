"""Measurements of ringtape beside its peers, run by hand: ``./run bench``. Never a pass/fail test."""
