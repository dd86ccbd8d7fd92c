"""`make bench`: what the farm adds to the figures it publishes. Interleaved in one run; takes some ten minutes."""

import sys

from bench import boot, builds, by_hand, session, upload
from farm.settings import load_settings


def main() -> int:
    """Exit status 1 when a target is missed; a busy machine widens the intervals, so look at its load first."""
    home = load_settings().home
    missed = False
    for measure in (session.run, builds.run, upload.run, boot.run, by_hand.run):
        for row in measure(home):
            print(row, flush=True)
            missed |= not row.met
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
