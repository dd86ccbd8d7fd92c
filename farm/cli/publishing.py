"""`farm publish`: judge what came in and write the public site."""

import argparse
import datetime
import threading
from typing import Any

from farm.cli.context import Context


def register(commands: Any) -> None:
    parser = commands.add_parser(
        "publish",
        help="judge what came in and write the site",
        description="Judge what came in and write the public site; does nothing where nothing changed. "
        "A running farm does so by itself.",
    )
    parser.add_argument("--watch", action="store_true", help="go on doing so whenever something comes in")
    parser.set_defaults(handler=run)


def run(arguments: argparse.Namespace, context: Context) -> int:
    if not arguments.watch:
        print(_publish_once(context))
        return 0
    from reports.watch import watch

    watch(context.settings, threading.Event())
    return 0


def _publish_once(context: Context) -> str:
    from farm.judge import judge
    from reports.site import publish

    now = datetime.datetime.now(datetime.UTC)
    judge(context.engine, context.settings, context.inventory, now)
    return str(publish(context.engine, context.settings, context.inventory, now) / "index.html")
