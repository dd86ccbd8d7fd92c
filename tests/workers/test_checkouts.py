"""Files of a check-in, from repositories that are hostile: what leaves the tree is refused, nothing of them runs."""

import os
import shutil
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from scenarios.contract import Failed
from tests.helpers.check_ins import DeploymentRepository
from workers import room
from workers.checkouts import Mirror, apply_patch


@pytest.fixture
def repository(tmp_path: Path) -> DeploymentRepository:
    return DeploymentRepository(tmp_path / "repository")


@pytest.fixture
def mirror(tmp_path: Path, repository: DeploymentRepository) -> Mirror:
    return Mirror(str(repository.path), tmp_path / "mirrors" / "m.git")


def extract(mirror: Mirror, commit: str, target: Path) -> Path:
    target.mkdir()
    mirror.bring(commit)
    mirror.extract(commit, target)
    return target


def test_files_programs_and_inner_links_arrive(
    repository: DeploymentRepository, mirror: Mirror, tmp_path: Path
) -> None:
    (repository.path / "run").write_text("#!/bin/sh\n")
    (repository.path / "run").chmod(0o755)
    build = repository.check_in({"a/b": "text"}, links={"a/up": "../run"})
    tree = extract(mirror, build.commit, tmp_path / "tree")
    assert (tree / "a" / "b").read_text() == "text"
    assert os.access(tree / "run", os.X_OK)
    assert (tree / "a" / "up").resolve() == tree / "run"


def test_a_commit_that_left_its_branch_is_still_found(
    repository: DeploymentRepository, mirror: Mirror, tmp_path: Path
) -> None:
    build = repository.check_in({"a": "1"})
    repository.git("checkout", "--quiet", "--orphan", "other")
    repository.check_in({"a": "2"})
    repository.git("branch", "-D", "main")
    assert (extract(mirror, build.commit, tmp_path / "tree") / "a").read_text() == "1"


@pytest.mark.parametrize(
    "links",
    [
        {"a": "/etc/passwd"},
        {"a": "../outside"},
        {"x": "y/../..", "y": "."},
        {"x": "y/..", "y": "."},
        {"loop": "loop"},
    ],
)
def test_links_out_of_the_tree_are_refused(
    repository: DeploymentRepository, mirror: Mirror, tmp_path: Path, links: dict[str, str]
) -> None:
    build = repository.check_in({"file": ""}, links=links)
    with pytest.raises(Failed, match="the link") as caught:
        extract(mirror, build.commit, tmp_path / "tree")
    assert caught.value.fault == "stack"


@pytest.mark.parametrize("name", ["..", ".git", "a/../../b"])
def test_forged_paths_are_refused(repository: DeploymentRepository, mirror: Mirror, tmp_path: Path, name: str) -> None:
    (repository.path / "x").write_text("x")
    blob = repository.git("hash-object", "-w", "x")
    content = b"100644 " + name.encode() + b"\0" + bytes.fromhex(blob)
    tree = subprocess.run(
        ["git", "hash-object", "-t", "tree", "-w", "--literally", "--stdin"],
        cwd=repository.path, input=content, capture_output=True, check=True,
    ).stdout.decode().strip()  # fmt: skip
    commit = repository.git("commit-tree", tree, "-m", "forged")
    repository.git("update-ref", "refs/heads/main", commit)
    with pytest.raises(Failed) as caught:
        extract(mirror, commit, tmp_path / "tree")
    assert caught.value.fault == "stack"
    assert not (tmp_path / "b").exists()


def test_submodules_are_refused(repository: DeploymentRepository, mirror: Mirror, tmp_path: Path) -> None:
    inner = repository.check_in({"a": ""}).commit
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{inner},sub")
    repository.git("commit", "--quiet", "--message", "submodule")
    commit = repository.git("rev-parse", "HEAD")
    with pytest.raises(Failed, match="submodule"):
        extract(mirror, commit, tmp_path / "tree")


def test_a_submodule_that_is_not_needed_is_an_empty_folder(
    repository: DeploymentRepository, mirror: Mirror, tmp_path: Path
) -> None:
    inner = repository.check_in({"a": ""}).commit
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{inner},sub/module")
    commit = repository.commit("submodule")
    mirror.bring(commit)
    mirror.extract(commit, tmp_path, submodules=True)
    assert [path.name for path in (tmp_path / "sub").iterdir()] == ["module"]
    assert not any((tmp_path / "sub" / "module").iterdir())


def test_nothing_of_the_repository_runs(repository: DeploymentRepository, mirror: Mirror, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    program = repository.path / ".git" / "hooks" / "post-checkout"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\ntouch {ran}\n")
    program.chmod(0o755)
    for key in ("uploadpack.packObjectsHook", "core.fsmonitor", "filter.f.smudge", "core.alternateRefsCommand"):
        repository.git("config", key, str(program))
    build = repository.check_in({".gitattributes": "* filter=f\n", "a": "as stored"})
    ran.unlink(missing_ok=True)
    tree = extract(mirror, build.commit, tmp_path / "tree")
    assert (tree / "a").read_text() == "as stored"
    assert not ran.exists()


@pytest.mark.parametrize("commit", ["f" * 40, "main", "--upload-pack=touch", "abc"])
def test_a_commit_that_is_not_there_is_the_stacks_fault(
    repository: DeploymentRepository, mirror: Mirror, commit: str
) -> None:
    repository.check_in({"a": ""})
    with pytest.raises(Failed) as caught:
        mirror.bring(commit)
    assert caught.value.fault == "stack"


@pytest.mark.parametrize("url", ["/nowhere/at/all", "ext::sh -c true", "--upload-pack=true", "https://127.0.0.1:1/x"])
def test_a_repository_that_does_not_answer_is_the_farms_fault(tmp_path: Path, url: str) -> None:
    with pytest.raises(Failed, match="cannot be fetched") as caught:
        Mirror(url, tmp_path / "m.git").bring("f" * 40)
    assert caught.value.fault == "farm"


def cut_objects(folder: Path) -> None:
    for file in (*folder.glob("objects/pack/*.pack"), *folder.glob("objects/??/*")):
        file.chmod(0o644)
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def lose_blobs(folder: Path) -> None:
    for file in folder.glob("objects/??/*"):
        if zlib.decompress(file.read_bytes()).startswith(b"blob"):
            file.unlink()


def empty_head(folder: Path) -> None:
    (folder / "HEAD").write_text("")


def lose_objects(folder: Path) -> None:
    shutil.rmtree(folder / "objects")


def locks_of_a_killed_git(folder: Path) -> None:
    for name in ("packed-refs", "config", "refs/heads/main"):
        (folder / f"{name}.lock").write_text("")


@pytest.mark.parametrize("damage", [cut_objects, lose_blobs, empty_head, lose_objects, locks_of_a_killed_git])
def test_a_damaged_copy_is_made_again(
    repository: DeploymentRepository, mirror: Mirror, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    first = repository.check_in({"a": "1"})
    extract(mirror, first.commit, tmp_path / "before")
    damage(mirror.folder)
    assert (extract(mirror, first.commit, tmp_path / "after") / "a").read_text() == "1"
    second = repository.check_in({"a": "2"})
    assert (extract(mirror, second.commit, tmp_path / "next") / "a").read_text() == "2"


def test_a_repository_that_is_away_costs_no_copy(
    repository: DeploymentRepository, mirror: Mirror, tmp_path: Path
) -> None:
    known = repository.check_in({"a": "1"})
    mirror.bring(known.commit)
    away = repository.path.rename(tmp_path / "away")
    with pytest.raises(Failed, match="cannot be fetched") as caught:
        mirror.bring("f" * 40)
    assert caught.value.fault == "farm"
    assert (extract(mirror, known.commit, tmp_path / "tree") / "a").read_text() == "1"
    assert away.is_dir()


@pytest.mark.machine
def test_a_full_disk_is_never_the_stacks_fault(
    repository: DeploymentRepository, mirror: Mirror, tmp_path: Path
) -> None:
    build = repository.check_in({"a": "x" * 100_000})
    mirror.bring(build.commit)
    target, full = tmp_path / "target", "no room left for it"
    target.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(target)], check=True, timeout=30)
    try:
        with pytest.raises(Failed, match=full) as extracted, room.needed("it"):
            mirror.extract(build.commit, target)
        with pytest.raises(Failed, match="no room left") as patched:
            apply_patch(repository.path, repository.path / "a", target)
        assert {extracted.value.fault, patched.value.fault} == {"farm"}
    finally:
        subprocess.run(["umount", str(target)], check=True, timeout=30)
