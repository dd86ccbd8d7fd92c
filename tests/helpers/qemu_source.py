"""QEMU's own repository as upstream has it: a released source package as one commit, its submodules elsewhere."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.helpers.check_ins import FARM_HOME
from tests.helpers.repositories import Repository
from workers.debian import Apt

_FOLDER = FARM_HOME / "cache" / "source-packages"
_TIMEOUT_S = 300
_FIRMWARE = ("seabios", "qemu-system-data")  # which Debian packs apart, and upstream's repository holds
_EDK2 = re.compile(r"'(edk2-[a-z0-9_-]+\.fd)'")
_PART = "ui/keycodemapdb"


@dataclass(frozen=True)
class QemuSource:
    repository: Path
    commit: str
    part: Path  # keycodemapdb
    part_commit: str

    def change(self, file: str, old: str, new: str) -> str:
        """A check-in after the release that touches one file; returns its commit."""
        repository = Repository.at(self.repository)
        repository.git("checkout", "--quiet", "--force", "-B", "changed", self.commit)
        path = self.repository / file
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        repository.git("add", file)
        return repository.commit(f"Change {file}")


def qemu_source() -> QemuSource:
    """Two repositories, made once from Debian's source package; at a place that stays, as upstream's address does."""
    folder = _FOLDER / "qemu-git"
    if not folder.is_dir():
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        _make(part)
        part.rename(folder)
    commits = [Repository.at(folder / name).git("rev-parse", "main") for name in ("qemu", "keycodemapdb")]
    return QemuSource(folder / "qemu", commits[0], folder / "keycodemapdb", commits[1])


def _make(folder: Path) -> None:
    repository, part = Repository(folder / "qemu"), Repository(folder / "keycodemapdb")
    (archive,) = _downloaded().glob("*.orig.tar.xz")
    unpack = ["tar", "--extract", "--file", str(archive), "--strip-components=1", "--directory", str(repository.path)]
    subprocess.run(unpack, check=True, timeout=_TIMEOUT_S)
    _add_firmware(repository.path / "pc-bios")
    shutil.copytree(repository.path / _PART, part.path, dirs_exist_ok=True)
    shutil.rmtree(repository.path / _PART)
    part.git("add", "--all", "--force")
    part_commit = part.commit("keycodemapdb")
    repository.git("add", "--all", "--force")
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{part_commit},{_PART}")
    repository.commit("A release")


def _downloaded() -> Path:
    """A folder with Debian's source package of QEMU, downloaded once."""
    folder = _FOLDER / "qemu"
    if not folder.is_dir():
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        for name in ("lists/partial", "cache/archives/partial", "found"):
            (part / name).mkdir(parents=True)
        Apt(FARM_HOME / "cache" / "apt").known("qemu-system-x86")  # which makes its list of sources
        sources = (FARM_HOME / "cache" / "apt" / "sources.list").read_text().splitlines()
        plain = [line.replace("deb ", "deb-src ", 1) for line in sources if "backports" not in line]
        (part / "sources.list").write_text("\n".join(plain) + "\n")
        options = {
            "Dir::Etc::sourcelist": part / "sources.list",
            "Dir::Etc::sourceparts": "-",
            "Dir::State::lists": part / "lists",
            "Dir::Cache": part / "cache",
            "APT::Sandbox::User": "root",
        }
        told = [text for name, value in options.items() for text in ("-o", f"{name}={value}")]
        for words in (["update"], ["source", "--download-only", "qemu"]):
            subprocess.run(["apt-get", "--quiet=2", *told, *words], cwd=part / "found", check=True, timeout=_TIMEOUT_S)
        (part / "found").rename(folder)
        shutil.rmtree(part)
    return folder


def _add_firmware(folder: Path) -> None:
    """What Debian has left out of the source package, from its binary packages; empty where guests do not need it."""
    apt, root = Apt(FARM_HOME / "cache" / "apt"), folder / "unpacked"
    for name in _FIRMWARE:
        root.mkdir()
        apt.unpack(apt.known(name)[-1].pin, (), root)
        for file in (*root.glob("usr/share/seabios/*.bin"), *root.glob("usr/share/qemu/*.bin")):
            shutil.copyfile(file, folder / file.name)
        shutil.rmtree(root)
    for name in _EDK2.findall((folder / "meson.build").read_text()):
        (folder / f"{name}.bz2").touch()
