"""`farm stack`: what a stack.toml may say, looked at before it is checked in."""

import argparse
from pathlib import Path
from typing import Any

from farm import stacks
from farm.cli.context import Context, print_json
from farm.cli.errors import UsageError
from farm.cli.table import print_table
from scenarios.crossing import to_data
from scenarios.recipe import Recipe, Source
from scenarios.strict import read_toml


def register(commands: Any) -> None:
    stack = commands.add_parser(
        "stack",
        help="look at stack recipes before they are checked in",
        description="A stack recipe says what is deployed at a revision: a stack.toml at the root of a deployment "
        "repository, or a file of stacks/ for a repository that is a component's own source.",
    )
    actions = stack.add_subparsers(title="actions", metavar="ACTION", required=True)
    check = actions.add_parser("check", help="read a stack.toml as a worker will; exit status 2 says what is wrong")
    check.add_argument("file", type=Path)
    check.add_argument("--json", action="store_true", help="print the recipe with all its defaults as JSON")
    check.set_defaults(handler=check_one)
    listing = actions.add_parser("list", help="the recipes of stacks/")
    listing.add_argument("--json", action="store_true", help="print as JSON")
    listing.set_defaults(handler=list_all)


def check_one(arguments: argparse.Namespace, context: Context) -> int:
    recipe = read_toml(arguments.file, Recipe)
    if recipe.lock is not None and not (arguments.file.parent / recipe.lock).is_file():
        raise UsageError(f"{arguments.file}: its lock '{recipe.lock}' is not beside it")
    if arguments.json:
        print_json(to_data(recipe))
        return 0
    parts = ", ".join(f"{one.name} ({_told(one.source)})" for one in recipe.component)
    print(f"{arguments.file} is in order: stack '{recipe.stack.name}', {parts or 'of which nothing is deployed'}")
    return 0


def list_all(arguments: argparse.Namespace, context: Context) -> int:
    recipes = {name: stacks.load(name)[0] for name in stacks.names()}
    if arguments.json:
        print_json({name: to_data(recipe) for name, recipe in recipes.items()})
        return 0
    rows = [
        (name, recipe.stack.deployer, ", ".join(one.name for one in recipe.component))
        for name, recipe in recipes.items()
    ]
    print_table(("stack", "deployer", "components"), rows, empty="there is no recipe in stacks/")
    return 0


def _told(source: Source) -> str:
    if source.git is not None and source.commit is not None:
        return f"{source.git} at {source.commit[:10]}" + (" with a patch" if source.patch else "")
    return source.pypi or source.debian or f"folder {source.path}"
