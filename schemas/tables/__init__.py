"""One file per table: its ``TABLE`` is found by being here."""
