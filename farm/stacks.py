"""The recipes in `stacks/`: how a component is deployed whose own repository is watched. Data, read and never run."""

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

from farm.names import there_are
from scenarios.crossing import to_data
from scenarios.recipe import Component, Recipe, Source, kinds_of_source
from scenarios.strict import BadData, read_toml

FOLDER = Path(__file__).resolve().parent.parent / "stacks"
_NAME = re.compile(r"[a-z][a-z0-9-]{0,40}")


def names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


@cache
def load(name: str) -> tuple[Recipe, str | None]:
    """A stack's recipe and the text of its lock, if it names one. Raises BadData."""
    if not _NAME.fullmatch(name) or name not in names():
        raise BadData(f"there is no stack '{name}' {there_are(name, names())}")
    recipe = read_toml(FOLDER / f"{name}.toml", Recipe)
    if recipe.lock is None:
        return recipe, None
    try:
        return recipe, (FOLDER / recipe.lock).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(f"stacks/{name}.toml: its lock {recipe.lock} cannot be read: {error}") from None


def check(name: str, component: str) -> None:
    """Raises BadData unless the stack has this component, and it can be of a repository."""
    recipe, _ = load(name)
    there = [one.name for one in recipe.component]
    if component not in there:
        raise BadData(f"stack '{name}' has no component '{component}' {there_are(component, there)}")
    if "git" not in (kinds := kinds_of_source(component)):
        raise BadData(f"the component '{component}' is of no repository: it must have {' or '.join(map(repr, kinds))}")


def at_commit(name: str, component: str, url: str, commit: str) -> tuple[dict[str, object], str | None]:
    """The recipe with the component at a commit of its own repository, as plans carry it; and its lock."""
    recipe, lock = load(name)
    source = Source(git=url, commit=commit)
    changed = tuple(Component(one.name, source) if one.name == component else one for one in recipe.component)
    return to_data(replace(recipe, component=changed)), lock
