"""A host's page cache: what is dropped from it, and what cannot be."""

import mmap
import os
from pathlib import Path

import pytest

from scenarios.contract import Failed, WorkNotProven
from workers import page_cache

SIZE = 1 << 20


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(os.urandom(SIZE))
    return path


def test_a_file_just_written_is_dropped_whole(image: Path) -> None:
    assert page_cache.resident_bytes([str(image)]) == SIZE
    page_cache.evict([str(image)])
    assert page_cache.resident_bytes([str(image)]) == 0
    image.read_bytes()
    assert page_cache.resident_bytes([str(image)]) == SIZE


def test_pages_that_somebody_has_mapped_stay_and_are_told(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_cache, "_EVICT_TIMEOUT_S", 0.2)
    with image.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        assert mapped[0] == mapped[0]  # touched, hence in this process's page table
        with pytest.raises(WorkNotProven, match="cannot be dropped"):
            page_cache.evict([str(image)])


def test_nothing_is_proven_of_a_guest_that_is_gone(image: Path) -> None:
    with pytest.raises(Failed, match="no live VMM") as failed:
        page_cache.prove_read([str(image)], "farm-0123456789ab-1", 1)
    assert failed.value.fault == "hypervisor"
