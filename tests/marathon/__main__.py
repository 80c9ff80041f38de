"""The command: `python -m tests.marathon [--minutes 15]`, exit code 0 if all went well."""

import argparse
import os
import shutil
import sys
from pathlib import Path

from tests.marathon.incidents import MINUTES
from tests.marathon.play import play
from tests.marathon.task import DIRECTORY
from tests.marathon.verdict import findings

KEPT = Path("build/marathon")
"""Where logs stay until the next marathon."""
MINUTES_MIN = 4.0
"""In a shorter one nothing would last long enough to be noticed."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.marathon", description=__doc__)
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"how long, {MINUTES_MIN:.0f} at least")
    minutes: float = parser.parse_args().minutes
    if minutes < MINUTES_MIN:
        parser.error(f"--minutes: expected {MINUTES_MIN:.0f} at least, found {minutes:g}")
    shutil.rmtree(KEPT, ignore_errors=True)
    KEPT.mkdir(parents=True)
    os.environ[DIRECTORY] = str(KEPT.resolve())  # for the devices, which inherit it
    failed = False
    for finding in findings(play(KEPT.resolve(), minutes)):
        print(f"{'ok  ' if finding.holds else 'FAIL'} {finding.text}", flush=True)
        failed = failed or not finding.holds
    print(f"the logs are in {KEPT}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
