"""The example deployment repository of the embedded default, made from `examples/deployment`."""

import os
import shutil
import subprocess
from pathlib import Path

from farm.settings import CHECKOUT

_FOLDERS = CHECKOUT / "examples" / "deployment"
_GIT_TIMEOUT_S = 30
_WHO = "Example Developer <developer@example.invalid>"


def make_example_repository(target: Path) -> bool:
    """Make the repository, one check-in per folder; returns False if it was there. Whole or not at all."""
    if target.exists():
        return False
    part = target.with_name(target.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    _git(part, "init", "--quiet", "--initial-branch=main")
    for number, folder in enumerate(sorted(_FOLDERS.iterdir()), start=1):
        _copy_files(folder, part)
        _git(part, "add", "--all")
        # fixed names and times: the same example has the same revisions everywhere
        when = f"2026-01-{number:02d}T12:00:00Z"
        _git(part, "commit", "--quiet", f"--author={_WHO}", "--file", str(folder / "MESSAGE"), when=when)
    part.rename(target)
    return True


def _copy_files(folder: Path, repository: Path) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path != folder / "MESSAGE":
            destination = repository / path.relative_to(folder)
            destination.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, destination)


def _git(repository: Path, *arguments: str, when: str = "2026-01-01T00:00:00Z") -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_AUTHOR_DATE": when,
        "GIT_COMMITTER_DATE": when,
        "GIT_COMMITTER_NAME": "Example Developer",
        "GIT_COMMITTER_EMAIL": "developer@example.invalid",
    }
    subprocess.run(
        ["git", "-C", str(repository), *arguments],
        check=True,
        env=environment,
        timeout=_GIT_TIMEOUT_S,
        stdin=subprocess.DEVNULL,
    )
