"""Layer 0: the contracts between recorder and analysis. Tables, columns, the trace folder, errors."""

if __name__ != "ringtape.schemas":
    raise ImportError(f"this folder is the package ringtape.schemas; it was imported as {__name__!r} from outside of src/ringtape")
