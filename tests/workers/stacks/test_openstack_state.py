"""Which builds begin with the same databases: those that make the same, whatever else they differ in."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from farm import stacks
from scenarios.crossing import ResolvedBuild
from workers.builds import Build
from workers.stacks.openstack import what_makes_state

LOCK = "nova==1 --hash=sha256:aa\noslo-db==17 --hash=sha256:bb\n"


def build_in(folder: Path) -> Build:
    """Code of two components, compiled as it would be anywhere."""
    for name in (
        "nova/nova/db/models.py",
        "nova/nova/cmd/manage.py",
        "nova/nova/api/servers.py",
        "glance/glance/db.py",
    ):
        write(folder / name, name)
    write(folder / "nova/nova/db/__pycache__/models.cpython-311.pyc", f"compiled in {folder}")
    recipe, _ = stacks.load("openstack")
    code = {"nova": folder / "nova", "glance": folder / "glance"}
    return Build(ResolvedBuild("0" * 64, LOCK, "", {}), recipe, code, Path("/nowhere"))


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def with_lock(build: Build, lock: str) -> Build:
    return replace(build, resolved=replace(build.resolved, lock=lock))


def other_file(name: str) -> Callable[[Build], Build]:
    def change(build: Build) -> Build:
        component = name.partition("/")[0]
        write(build.code[component].parent / name, "changed")
        return build

    return change


@pytest.mark.parametrize(
    ("change", "shares"),
    [
        (lambda build: build, True),
        (other_file("nova/nova/api/servers.py"), True),
        (lambda build: with_lock(build, LOCK.replace("nova==1 --hash=sha256:aa", "nova==2 --hash=sha256:cc")), True),
        (other_file("nova/nova/db/models.py"), False),
        (other_file("nova/nova/cmd/manage.py"), False),
        (other_file("glance/glance/db.py"), False),
        (lambda build: with_lock(build, LOCK.replace("oslo-db==17", "oslo-db==18")), False),
    ],
)
def test_builds_share_databases_that_the_same_sources_make(
    tmp_path: Path, change: Callable[[Build], Build], shares: bool
) -> None:
    one, other = build_in(tmp_path / "one"), change(build_in(tmp_path / "other"))
    assert (what_makes_state(one) == what_makes_state(other)) == shares
