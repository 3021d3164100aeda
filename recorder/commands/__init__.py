"""One file per verb, found by being here."""
