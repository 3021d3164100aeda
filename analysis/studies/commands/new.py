"""Write a study file with comments, to be changed."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from ringtape.schemas.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("file", metavar="FILE", help="where to write it, such as study.toml; - for standard output")


def run(args: argparse.Namespace) -> int:
    """Write it, over nothing."""
    text = (Path(__file__).parent.parent / "template.toml").read_text(encoding="utf-8")
    if args.file == "-":
        print(text, end="")
        return 0
    try:
        with open(args.file, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{args.file} is there already", "name another file") from None
    except OSError as error:
        raise UsageError(f"{args.file}: {os.strerror(error.errno or 0).lower()}", "name a file that can be written") from None
    print(f"{args.file}: change it, then `ringtape study check {args.file}`")
    return 0
