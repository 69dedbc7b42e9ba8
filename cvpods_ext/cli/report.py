"""pods_report: write the numbers of experiments into their README cards, or check that they agree."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cvpods_ext.cli.common import guarded, parser

EXAMPLES = """\
  pods_report                                 the card of the experiment in the current folder
  pods_report playground                      all cards below a folder, and the index of a playground
  pods_report --check playground              fail if a card and its results.json or config.py disagree"""


def main() -> None:
    """Entry point of pods_report."""
    flags = parser("pods_report", "Render results.json and config.py into the README of each experiment.", EXAMPLES)
    flags.add_argument("folders", nargs="*", type=Path, metavar="FOLDER", help="searched for experiments (default: .)")
    flags.add_argument("--check", action="store_true", help="write nothing; exit with 1 and a diff on disagreement")
    arguments = flags.parse_args()
    guarded("pods_report", lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    from cvpods_ext.report import card, playground

    folders = arguments.folders or [Path()]
    documents = [(folder, card) for folder in card.experiments(folders)]
    documents += [(folder, playground) for folder in folders if playground.is_playground(folder)]
    stale = 0
    for folder, kind in documents:
        if arguments.check:
            difference = kind.check(folder)
            if difference:
                stale += 1
                print("\n".join(difference))
        elif kind.update(folder):
            stale += 1
            print(f"{folder / 'README.md'}: written")
    if arguments.check and stale:
        counts = f"{stale} of {len(documents)} cards disagree with their files"
        print(f"pods_report: {counts}; run pods_report without --check", file=sys.stderr)
        sys.exit(1)
    print(f"{len(documents)} cards, {'all up to date' if not stale else f'{stale} written'}")
