"""What only who sees a host can tell: where nobody does, the figure is unsupported, and the others stand."""

from collections.abc import Callable
from typing import TypeVar

from scenarios.contract import Cell, Unsupported

Sight = TypeVar("Sight")


def seen(cell: Cell, metric: str, look: Callable[[], Sight]) -> Sight | None:
    """What `look` tells; None where it is unsupported, and the reason among the cell's evidence."""
    try:
        return look()
    except Unsupported as reason:
        cell.evidence(f"{metric} is unsupported: {reason}")
        return None
