"""Comparing recordings: several runs on each side, the run as the unit that is replicated."""
