"""Compiles probes with BCC; run as a program of its own under the distribution's python3, which is the one that sees BCC.

Reads {"text", "headers", "functions"} as JSON, writes {"version", "functions": {name: hex}} or {"error"}. Standard library
and BCC only, on any Python 3. No map is created and nothing is loaded, so it needs no privilege.
"""

import contextlib
import io
import json
import os
import sys
import warnings


def main():
    """Answer one request."""
    request = json.load(sys.stdin)
    # BCC changes into this folder while it compiles and looks for nothing of the kernel's outside of it.
    os.environ["BCC_KERNEL_SOURCE"] = request["headers"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # BCC 0.26 holds an escape that newer Pythons warn about
        try:
            import bcc
            import bcc.libbcc  # PyPI's unrelated package of that name has no such module
        except ImportError as error:
            return {"error": f"BCC cannot be imported: {error}"}
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            module = bcc.BPF(text=request["text"].encode(), cflags=["-Wno-unused-value", "-Wno-unused-function", "-Wno-macro-redefined"])
            functions = {name: module.dump_func(name.encode()).hex() for name in request["functions"]}
    except Exception as error:  # noqa: BLE001 - whatever BCC raises is this program's answer, not its end
        return {"error": f"{type(error).__name__}: {error}"}
    return {"version": bcc.__version__, "functions": functions}


if __name__ == "__main__":
    json.dump(main(), sys.stdout)
