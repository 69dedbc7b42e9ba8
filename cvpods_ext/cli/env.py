"""pods_env: versions, devices and known problems of this installation, for a bug report."""

from __future__ import annotations

import sys

from cvpods_ext.cli.common import guarded, parser

EXAMPLES = """\
  pods_env                                    everything that a bug report needs"""


def main() -> None:
    """Entry point of pods_env."""
    flags = parser("pods_env", "Print versions, devices and known problems of this installation.", EXAMPLES)
    flags.parse_args()
    guarded("pods_env", _run)


def _run() -> None:
    from cvpods_ext.runtime.environment import devices, problems, versions

    for name, value in {**versions(), **devices()}.items():
        print(f"{name:<14} {value}")
    found = problems()
    for problem in found:
        print(f"problem: {problem}")
    if found:
        sys.exit(1)
    print("no known problem")
