"""Pictures: functions from result frames to matplotlib figures, one file per family, in one style (`style`)."""
