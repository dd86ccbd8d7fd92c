"""Accepted bundles as part of the site, so that every figure can be checked against what was signed."""

import os
import re
import shutil
from pathlib import Path

# a browser must never take a file of a bundle for a page: what is not one of these is published as .txt
_AS_IT_IS = frozenset({".json", ".jsonl", ".sig", ".txt"})
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")


def publish_bundle(unpacked: Path, target: Path) -> list[str]:
    """Copy (as links, where the file system can) the bundle's plain files; returns their names in the site."""
    names = []
    for path in sorted(unpacked.rglob("*")):
        name = str(path.relative_to(unpacked))
        if path.is_symlink() or not path.is_file() or not _NAME.fullmatch(name):
            continue
        published = name if path.suffix in _AS_IT_IS else f"{name}.txt"
        destination = target / published
        destination.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, destination)
        except OSError:
            shutil.copyfile(path, destination)
        names.append(published)
    return names
