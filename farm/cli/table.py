"""Plain tables for a terminal or a pipe."""

from collections.abc import Sequence


def print_table(head: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str) -> None:
    """Print aligned columns, or the line `empty` when there are no rows."""
    if not rows:
        print(empty)
        return
    texts = [tuple(str(cell) for cell in row) for row in rows]
    widths = [max(len(cell) for cell in column) for column in zip(head, *texts, strict=True)]
    for line in (tuple(head), *texts):
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
