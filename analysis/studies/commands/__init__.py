"""The verbs of `ringtape study`: one file per verb, found by being there."""
