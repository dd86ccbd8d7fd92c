"""The `farm` command. Each subcommand is a function of (arguments, Context) that returns an exit status.

What judges and draws takes two seconds to load: the functions that need it import it themselves, so that all others
answer at once.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

from farm.basedirs import CannotPrepare
from farm.cli import answers, clusters, publishing, running, sessions, stacks
from farm.cli.context import Context
from farm.cli.errors import UsageError
from farm.results.database import DatabaseUnusable
from scenarios.strict import BadData

_EPILOG = """\
the first minute:
  make run                     measure the example on two local clusters, publish, end
  farm status                  what runs, how far it is, where the site is
  farm regressions             the check-ins that made something slower or faster
  farm compare acorn birch     one cluster against another

settings are read from --settings, $SETTINGS, or are the embedded default; state lies in $FARM_HOME (default var/).
exit status: 0 done, 2 the command cannot be carried out as asked (one line says why)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; bad input ends with one line on standard error and exit status 2."""
    signal.signal(signal.SIGTERM, _exit_on_signal)
    arguments = build_parser().parse_args(argv)
    handler: Callable[[argparse.Namespace, Context], int] = arguments.handler
    try:
        return handler(arguments, Context.load(arguments.settings))
    except (BadData, UsageError, DatabaseUnusable, CannotPrepare) as error:
        print(f"farm: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def build_parser() -> argparse.ArgumentParser:
    """All commands with their help."""
    parser = argparse.ArgumentParser(
        prog="farm",
        description="Measures every check-in of a compute/storage stack on clusters that vendors lend.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--settings", type=Path, metavar="FILE", help="a farm.toml (docs/how-to/watch-a-repository.md)")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (running, sessions, answers, clusters, stacks, publishing):
        module.register(commands)
    return parser


def _exit_on_signal(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends Python without `finally`; as SystemExit it does not."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
