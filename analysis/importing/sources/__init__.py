"""One file per tool whose recordings can be imported, found by being there: ``SUMMARY``, ``recognises`` and ``read``."""
