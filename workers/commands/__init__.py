"""The commands of `python -m workers`, one module each."""

import argparse
import os
from pathlib import Path

from scenarios.crossing import PlannedCluster
from scenarios.strict import BadData, parse_json


def add_home_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--home", type=Path, default=os.environ.get("FARM_HOME"), help="the farm's state (default: $FARM_HOME)"
    )


def add_cluster_arguments(parser: argparse.ArgumentParser) -> None:
    """`--home` and `--cluster`, alike for all commands."""
    add_home_argument(parser)
    parser.add_argument(
        "--cluster", required=True, metavar="JSON", help="the planned cluster: a JSON object, or a file that holds one"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def home_of(arguments: argparse.Namespace) -> Path:
    if arguments.home is None:
        raise BadData("--home is missing, and so is $FARM_HOME")
    return Path(arguments.home).resolve()


def cluster_of(arguments: argparse.Namespace) -> PlannedCluster:
    """Raises BadData with one line for what is no planned cluster."""
    text: str = arguments.cluster
    if text.lstrip().startswith("{"):
        return parse_json(text, PlannedCluster, source="--cluster")
    try:
        content = Path(text).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(f"--cluster: {error}") from None
    return parse_json(content, PlannedCluster, source=text)
