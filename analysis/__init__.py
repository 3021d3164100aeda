"""Layer 1b: from the trace folder to numbers, tables and pictures."""

if __name__ != "ringtape.analysis":
    raise ImportError(f"this folder is the package ringtape.analysis; it was imported as {__name__!r} from outside of src/ringtape")
