"""Contents of any size out of one file: what is read, digested and sent are the same bytes, and no two blocks are alike."""

import hashlib

import pytest

from workers.objectstores.payload import Payload, extents

POOL_MIB = 4


@pytest.fixture(scope="module")
def payload(tmp_path_factory: pytest.TempPathFactory) -> Payload:
    return Payload(tmp_path_factory.mktemp("payload") / "payload", POOL_MIB)


@pytest.mark.parametrize("size_mib", [1, POOL_MIB, POOL_MIB + 1, 19])
def test_digests_are_those_of_what_is_read(payload: Payload, size_mib: int) -> None:
    content = payload.content(size_mib)
    whole = content.read(0, content.size)
    assert len(whole) == size_mib << 20
    assert content.sha256 == hashlib.sha256(whole).hexdigest()
    step = 100_000
    pieces = [whole[at : at + step] for at in range(0, len(whole), step)]
    assert content.md5s(step) == tuple(hashlib.md5(piece).hexdigest() for piece in pieces)
    assert content.sha256_of(step, 2 * step) == hashlib.sha256(whole[step : 3 * step]).hexdigest()


def test_no_stored_block_is_like_another(payload: Payload) -> None:
    content = payload.content(64)
    blocks = [hashlib.sha256(content.read(at, 4096)).digest() for at in range(0, content.size, 4096)]
    assert len(set(blocks)) >= len(blocks) * 0.99


def test_what_the_file_holds_is_sent_in_one_stretch() -> None:
    assert list(extents(4 << 20, 1000, 3 << 20)) == [(1000, 3 << 20)]
    assert sum(count for _, count in extents(4 << 20, 3 << 20, 9 << 20)) == 9 << 20
    assert all(at + count <= 4 << 20 for at, count in extents(4 << 20, 0, 1 << 30))
