"""What a scenario stored goes when it is done with it, whatever came of that."""

import contextlib
from collections.abc import Iterator

from scenarios.contract import ObjectStore, ScenarioError


@contextlib.contextmanager
def removed(store: ObjectStore, name: str) -> Iterator[str]:
    """Whatever has this name goes afterwards; why it could not is told only where nothing went wrong before."""
    try:
        yield name
    except ScenarioError:
        with contextlib.suppress(ScenarioError):
            store.remove(name)
        raise
    store.remove(name)
