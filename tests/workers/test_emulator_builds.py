"""QEMU from its own source: built behind walls with a compiler cache, and what a check-in cannot do to that cache."""

import io
import os
import secrets
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from scenarios import boot
from scenarios.contract import Failed
from scenarios.crossing import PlannedBuild, revision_of
from scenarios.recipe import DiskSettings, GuestSettings
from tests.helpers.check_ins import FARM_HOME, example_lock
from tests.helpers.labs import Lab, lab_on, outcomes_of
from tests.helpers.local_clusters import planned_cluster
from tests.helpers.qemu_source import QemuSource, qemu_source
from tests.helpers.repositories import Repository
from workers import emulators
from workers.archives import Archive
from workers.bench import SessionBench
from workers.builds import Workshop, resolve
from workers.compilers import CompilerCache

NINJA = """\
rule compile
  command = gcc -c -o $out $in
rule link
  command = gcc -o $out $in
build main.o: compile ../source/main.c
build qemu-system-x86_64: link main.o
"""
MAIN = "int main(void) { return 0; }\n"
GUEST = GuestSettings(memory_mib=256, machine="pc", cpu="qemu64")


def workshop_at(home: Path, *, caches: tuple[str, ...]) -> Workshop:
    (home / "cache").mkdir(parents=True)
    (home / "venv").symlink_to(FARM_HOME / "venv")
    for name in caches:
        (FARM_HOME / "cache" / name).mkdir(exist_ok=True)
        (home / "cache" / name).symlink_to(FARM_HOME / "cache" / name)
    return Workshop(home, "emulators", home / "session")


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return workshop_at(tmp_path / "home", caches=("pip", "builds"))


def planned(*components: dict[str, object]) -> PlannedBuild:
    recipe = {
        "stack": {"name": "qemu", "deployer": "swift"},
        "component": [{"name": "swift", "source": {"pypi": "swift==2.38.3"}}, *components],
        "lock": "lock.txt",
    }
    return PlannedBuild(revision_of({"qemu": str(components)}), "qemu", ("subject",), "", "", recipe, example_lock())


def component(name: str, repository: Path, commit: str) -> dict[str, object]:
    return {"name": name, "source": {"git": str(repository), "commit": commit}}


def built(workshop: Workshop, *components: dict[str, object]) -> Archive:
    emulator = resolve(planned(*components), workshop).emulator
    assert emulator is not None
    return emulator


def tree(folder: Path, *, before: str = "", main: str = MAIN) -> dict[str, object]:
    """As small a QEMU as can be: `before` runs when it is configured."""
    repository = Repository(folder)
    texts = {"configure": f"#!/bin/sh -e\n{before}\ncat >build.ninja <<'END'\n{NINJA}END\n", "main.c": main}
    for name, text in {**texts, "pc-bios/bios-256k.bin": "firmware"}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    (folder / "configure").chmod(0o755)
    repository.git("add", "--all")
    return component("qemu", folder, repository.commit("a check-in"))


def names(emulator: Archive) -> list[str]:
    with tarfile.open(emulator.archive) as archive:
        return archive.getnames()


@pytest.mark.machine
def test_equal_source_is_built_once_and_compiled_code_is_found_again(workshop: Workshop, tmp_path: Path) -> None:
    never_built = f"/* {secrets.token_hex(8)} */\n{MAIN}"  # builds are kept from one run of the tests to the next
    source = tree(tmp_path / "qemu", main=never_built)
    first = built(workshop, source)
    assert names(first) == [emulators.PROGRAM, "usr/share/qemu/bios-256k.bin"]
    cache = workshop.compiled(str(tmp_path / "qemu"))
    kept = sorted(path.name for path in cache.folder.glob("*/*"))
    assert kept
    repository = Repository.at(tmp_path / "qemu")
    (tmp_path / "qemu" / "README").write_text("changed")
    repository.git("add", "--all")
    second = built(workshop, component("qemu", repository.path, repository.commit("another check-in")))
    assert second.digest == first.digest
    assert sorted(path.name for path in cache.folder.glob("*/*")) == kept  # nothing had to be compiled


@pytest.mark.machine
@pytest.mark.parametrize(
    ("before", "main", "told"),
    [
        ("echo as bad as it gets >&2; exit 1", MAIN, r"\(at: configure\): .*as bad as it gets"),
        ("", "#error as bad as it gets\n", r"\(at: compile\): .*as bad as it gets"),
        (
            "touch /kept/x || { echo error: it stays as it is; exit 1; }",
            MAIN,
            r"\(at: configure\): .*it stays as it is",
        ),
        ("rm -r ../source/pc-bios; mkdir /out/program", MAIN, r"\(at: compile\)"),
    ],
)
def test_source_that_cannot_be_built_is_its_own_fault(
    workshop: Workshop, tmp_path: Path, before: str, main: str, told: str
) -> None:
    with pytest.raises(Failed, match=f"component 'qemu' cannot be built {told}") as failed:
        built(workshop, tree(tmp_path / "qemu", before=before, main=main))
    assert failed.value.fault == "stack"
    assert "\n" not in str(failed.value)


def archive(*members: tuple[str, bytes, bytes]) -> bytes:
    """Of (name, type, content)."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as packed:
        for name, kind, content in members:
            entry = tarfile.TarInfo(name)
            entry.type, entry.size, entry.linkname = kind, len(content) if kind == tarfile.REGTYPE else 0, "/etc/passwd"
            packed.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def test_a_check_in_leaves_nothing_but_new_entries_in_the_compiler_cache(tmp_path: Path) -> None:
    cache, key = CompilerCache(tmp_path / "cache"), "0123456789abcdefghij"
    cache.add(archive((f"./ab/{key}", tarfile.REGTYPE, b"honest")))
    cache.add(
        archive(
            (f"./ab/{key}", tarfile.REGTYPE, b"another"),
            (f"./ab/../../{key}", tarfile.REGTYPE, b"outside"),
            (f"/ab/{key}1", tarfile.REGTYPE, b"outside"),
            (f"./ab/{key}2", tarfile.SYMTYPE, b""),
            (f"./ab/{key}3", tarfile.LNKTYPE, b""),
            (f"./ab/{key}4", tarfile.FIFOTYPE, b""),
            (f"./cd/{key}5", tarfile.REGTYPE, b"new"),
        )
    )
    cache.add(b"no archive at all")
    found = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {f"cache/ab/{key}": b"honest", f"cache/cd/{key}5": b"new"}


def test_the_compiler_cache_drops_what_is_oldest(tmp_path: Path) -> None:
    cache = CompilerCache(tmp_path, limit_mib=2)
    for number in range(3):
        name = f"ab/{number:020}"
        cache.add(archive((f"./{name}", tarfile.REGTYPE, bytes(1 << 20))))
        os.utime(tmp_path / name, (number, number))
    assert sorted(path.name[-1] for path in tmp_path.glob("*/*")) == ["1", "2"]


@pytest.fixture(scope="module")
def source() -> QemuSource:
    return qemu_source()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab_on(planned_cluster("built", hosts=1), tmp_path_factory.mktemp("home")) as lab:
        yield lab


@pytest.mark.machine
def test_a_check_in_that_touches_one_file_is_compiled_by_itself_and_boots(
    source: QemuSource, lab: Lab, tmp_path: Path
) -> None:
    """The whole of QEMU: minutes where nothing of it is in the compiler cache."""
    workshop = workshop_at(tmp_path / "home", caches=("pip", "builds", "compilers", "mirrors"))
    part = component("keycodemapdb", source.part, source.part_commit)
    built(workshop, component("qemu", source.repository, source.commit), part)
    cache = workshop.compiled(str(source.repository)).folder
    before = set(cache.glob("*/*"))
    assert len(before) > 1000
    text = f"QEMU emulator of {tmp_path}, version "
    changed = source.change("softmmu/vl.c", "QEMU emulator version ", text)
    emulator = built(workshop, component("qemu", source.repository, changed), part)
    assert 0 < len(set(cache.glob("*/*")) - before) < 10
    assert text.encode() in emulator.archive.read_bytes()

    hosts = lab.qemu.hosts(GUEST, DiskSettings(), emulator)
    (outcome,) = outcomes_of(lab.measure(boot.SCENARIO, SessionBench(hosts, None, lab.qemu.now_s)))
    assert (outcome.outcome, outcome.reason) == ("measured", None)
