"""Check whether this machine can record, and say what mends it."""

from __future__ import annotations

import argparse

WIDTH = 19


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the verb."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--quiet", action="store_true", help="print nothing where recording works, else one sentence why not")
    group.add_argument("--json", action="store_true", help="print the findings as one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Examine the machine; 0 if it can record, 1 if not."""
    import json
    from dataclasses import asdict

    from ringtape.recorder.doctor import examine, failures
    from ringtape.schemas.escape import escape

    findings = examine()
    failed = failures(findings)
    if arguments.json:
        print(json.dumps({"records": not failed, "findings": [asdict(finding) for finding in findings]}, indent=2))
    elif arguments.quiet:
        if failed:
            print(f"{escape(failed[0].said)}.")
    else:
        for finding in findings:
            print(f"{finding.state:<5} {finding.name:<{WIDTH}} {escape(finding.said)}")
            if finding.mend:
                print(f"{'':<5} {'':<{WIDTH}} -> {escape(finding.mend)}")
        print(f"\nThis machine {'can record' if not failed else 'cannot record: see the lines that begin with fail'}.")
    return 1 if failed else 0
