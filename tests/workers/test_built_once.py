"""A revision that was built before becomes the same bits on another worker, without being resolved or built again."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from scenarios.contract import Failed
from tests.helpers.check_ins import FARM_HOME
from tests.workers.test_sources import component
from workers.builds import Workshop, resolve

pytestmark = pytest.mark.machine


def workshop(folder: Path) -> Workshop:
    """One without builds of its own."""
    (folder / "cache").mkdir(parents=True)
    (folder / "venv").symlink_to(FARM_HOME / "venv")
    (folder / "cache" / "pip").symlink_to(FARM_HOME / "cache" / "pip")
    return Workshop(folder, "once", folder / "session")


def kinds(of: Workshop) -> set[str]:
    return {entry.name.partition("-")[0] for entry in of.cache.root.glob("[a-z]*")}


def test_a_revision_is_resolved_and_built_once(tmp_path: Path) -> None:
    here, there = workshop(tmp_path / "here"), workshop(tmp_path / "there")
    planned = component(tmp_path, "", "install_requires=['six']")
    first = resolve(planned, here)
    assert first.resolved.made.keys() == {"swift"}
    sent = f"artefact-{first.resolved.made['swift']}"
    shutil.copytree(here.cache.root / sent, there.cache.root / sent)

    known = replace(planned, resolved=(replace(first.resolved, platform="another"), first.resolved))
    again = resolve(known, there)
    assert again.resolved == first.resolved
    assert kinds(there) == {"artefact", "code", "environment", "tree"}
    assert (again.environment / "six.py").read_bytes() == (first.environment / "six.py").read_bytes()

    (kept,) = (there.cache.root / sent / "content").iterdir()
    kept.write_bytes(b"damaged")
    mended = resolve(known, there)
    assert mended.resolved.digest == first.resolved.digest
    assert "wheel" in kinds(there)


def test_what_was_built_to_other_bytes_is_known_to_be(tmp_path: Path) -> None:
    planned = component(tmp_path)
    here = workshop(tmp_path / "here")
    first = resolve(planned, here)
    told = first.resolved.lock.replace(first.resolved.made["swift"], "0" * 64)
    lost = replace(first.resolved, made={"swift": "0" * 64}, lock=told)
    again = resolve(replace(planned, resolved=(lost,)), here)
    assert again.resolved.digest == first.resolved.digest != lost.digest

    hostile = replace(first.resolved, lock="--index-url http://127.0.0.1:1/\n")
    with pytest.raises(Failed, match="no pin with a digest") as failed:
        resolve(replace(planned, resolved=(hostile,)), here)
    assert failed.value.fault == "farm"
