"""Forms in which other tools take a trace, one per file, found by being here."""
