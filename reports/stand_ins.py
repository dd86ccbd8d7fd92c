"""What of a stack is not the real thing: pages say it beside the figures."""

from collections.abc import Iterable

from farm.results.tables import Bundle
from scenarios.recipe import STAND_INS


def stand_ins(bundles: Iterable[Bundle], revision: str | None = None) -> dict[str, str]:
    """Part of the stack → what the farm put in its place, in the builds of these bundles, or in a revision's."""
    found: dict[str, str] = {}
    for bundle in bundles:
        for build in (bundle.manifest or {}).get("builds", []):
            stack = build["settings"].get("stack")
            if isinstance(stack, dict) and revision in (None, build["revision"]):
                found |= STAND_INS.get(str(stack.get("deployer")), {})
    return found
