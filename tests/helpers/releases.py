"""Repositories made of released source packages, one commit for each: what upstream's own git would be."""

import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.helpers.check_ins import FARM_HOME
from tests.helpers.repositories import Repository

_TIMEOUT_S = 300


def source_package(pin: str) -> Path:
    """The source package of a pin such as "swift==2.38.3", downloaded once."""
    folder = FARM_HOME / "cache" / "source-packages" / pin
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as part:
            pip = [str(FARM_HOME / "venv" / "bin" / "python"), "-m", "pip", "download", "--quiet", "--no-deps"]
            command = [*pip, "--no-binary", ":all:", "--dest", part, pin]
            subprocess.run(command, check=True, timeout=_TIMEOUT_S, capture_output=True)
            shutil.copytree(part, folder)
    (found,) = folder.iterdir()
    return found


def repository_of(path: Path, *pins: str) -> tuple[Repository, list[str]]:
    """A repository with one check-in for each release; and its commits, oldest first."""
    repository = Repository(path)
    return repository, [_check_in(repository, pin) for pin in pins]


def _check_in(repository: Repository, pin: str) -> str:
    for old in repository.path.iterdir():
        if old.name != ".git":
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    with tempfile.TemporaryDirectory() as folder:
        unpack = ["tar", "--extract", "--gzip", "--file", str(source_package(pin)), "--directory", folder]
        subprocess.run(unpack, check=True, timeout=_TIMEOUT_S)
        (top,) = Path(folder).iterdir()
        shutil.copytree(top, repository.path, dirs_exist_ok=True)
    repository.git("add", "--all", "--force")
    return repository.commit(f"Release {pin}")
