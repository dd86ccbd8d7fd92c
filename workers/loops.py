"""Loop devices, as the kernel tells them, by the file behind them."""

from pathlib import Path

_BLOCK = Path("/sys/block")
_DELETED = " (deleted)"


def loops_of(path: Path) -> list[str]:
    """Devices (`/dev/loop3`) whose file is `path` or lies under it."""
    found = []
    for entry in sorted(_BLOCK.glob("loop*")):
        try:
            backing = (entry / "loop" / "backing_file").read_text().rstrip("\n").removesuffix(_DELETED)
        except OSError:
            continue  # detached
        if Path(backing).is_relative_to(path):
            found.append(f"/dev/{entry.name}")
    return found
