"""`python -m workers`: what a cluster's worker does, as commands."""

import argparse
import os
import signal
import sys
from types import FrameType

from scenarios.contract import ScenarioError
from scenarios.strict import BadData
from workers.commands import check, hosts, session, sweep

COMMANDS = (
    session,
    hosts,
    sweep,
    check,
)  # modules with add_parser(subparsers); each sets `run`, which returns the exit code


def main(arguments: list[str] | None = None) -> int:
    """Exit codes: 0 done, 2 usage or bad input, 5 a fault of donor or farm."""
    os.umask(0o022)  # what hosts and guests are given must be readable to them, whoever started us
    signal.signal(signal.SIGTERM, _exit_on_signal)  # so that `finally` and `with` are kept
    parser = argparse.ArgumentParser(prog="python -m workers", description=__doc__)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(subparsers)
    chosen = parser.parse_args(arguments)
    try:
        return int(chosen.run(chosen))
    except BadData as error:
        print(f"workers: {error}", file=sys.stderr)
        return 2
    except ScenarioError as error:
        print(f"workers: {error}", file=sys.stderr)
        return 5
    except KeyboardInterrupt:
        return 130


def _exit_on_signal(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
