"""The guests' image: the same bytes every time, rebuilt when damaged, refused when it cannot be."""

import gzip
from pathlib import Path

import pytest

from scenarios.contract import Failed
from tests.helpers.local_clusters import FARM_HOME
from workers.guest_image import build_guest_image

pytestmark = pytest.mark.machine


def new_home(folder: Path) -> Path:
    (folder / "cache").mkdir(parents=True)
    (folder / "cache" / "software").symlink_to(FARM_HOME / "cache" / "software")
    return folder


def test_two_homes_make_the_same_image(tmp_path: Path) -> None:
    one = build_guest_image(new_home(tmp_path / "one"))
    two = build_guest_image(new_home(tmp_path / "two"))
    assert one.digest == two.digest
    assert one.initrd.read_bytes() == two.initrd.read_bytes()
    assert one.kernel.read_bytes().startswith(b"\x7fELF")


def test_extra_modules_are_packed_in(tmp_path: Path) -> None:
    home = new_home(tmp_path)
    plain = build_guest_image(home)
    packed = build_guest_image(home, ["fs/fuse"])
    assert b"extra/fs/fuse/fuse.ko" in gzip.decompress(packed.initrd.read_bytes())
    assert b"extra/fs" not in gzip.decompress(plain.initrd.read_bytes())
    assert packed.digest != plain.digest
    assert build_guest_image(home, ["fs/fuse", "fs/fuse"]) == packed


@pytest.mark.parametrize("name", ["drivers/nothing", "../..", "fs/../../../../boot"])
def test_modules_that_the_kernel_does_not_have_are_the_stacks_fault(tmp_path: Path, name: str) -> None:
    with pytest.raises(Failed, match="extra_modules") as failed:
        build_guest_image(new_home(tmp_path), [name])
    assert failed.value.fault == "stack"


def test_a_damaged_image_is_built_again(tmp_path: Path) -> None:
    home = new_home(tmp_path)
    image = build_guest_image(home)
    whole = image.initrd.read_bytes()
    image.initrd.chmod(0o644)
    image.initrd.write_bytes(whole[:-1] + b"\0\0")
    again = build_guest_image(home)
    assert again == image
    assert again.initrd.read_bytes() == whole


def test_without_a_kernel_it_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(Failed, match=r"run setup\.sh") as failed:
        build_guest_image(tmp_path)
    assert failed.value.fault == "farm"
