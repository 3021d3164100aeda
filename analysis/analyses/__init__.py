"""One file per analysis, found by being here."""
