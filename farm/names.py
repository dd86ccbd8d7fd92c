"""Names that do not exist are refused with the nearest that does."""

import difflib
from collections.abc import Iterable

from scenarios import sweeps
from scenarios.strict import BadData


def there_are(name: str, known: Iterable[str]) -> str:
    """The end of a refusal: `(did you mean 'boot'? there are: boot, cow_start)`."""
    everything = list(known)
    question = did_you_mean(name, everything)
    return f"({f'{question} ' if question else ''}there are: {', '.join(everything) or 'none'})"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The nearest names as a question; empty where none is near."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f"did you mean {' or '.join(map(repr, near))}?" if near else ""


def check_sweep(name: str) -> None:
    """Raises BadData for a sweep that does not exist, or asks what its scenario cannot answer."""
    if name not in sweeps.names():
        raise BadData(f"there is no sweep '{name}' {there_are(name, sweeps.names())}")
    sweeps.load(name)
