"""Recordings of other tools become trace folders: one file per source in `sources`, and one writer for all of them."""
