"""Layer 1a: from the kernel to the trace folder."""

if __name__ != "ringtape.recorder":
    raise ImportError(f"this folder is the package ringtape.recorder; it was imported as {__name__!r} from outside of src/ringtape")
