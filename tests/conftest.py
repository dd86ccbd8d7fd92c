"""For every test: what a module's clusters wrote to their disks is gone before the next module begins."""

from collections.abc import Iterator

import pytest

_DISKS = ("*/clusters/*/hosts/*/work.img", "*/clusters/*/storage/*.img")


@pytest.fixture(scope="module", autouse=True)
def _clusters_give_their_room_back(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cluster that is down keeps its disks for its farm's next session; all tests' together would fill a machine.

    Logs stay: they tell of a test that failed.
    """
    yield
    for pattern in _DISKS:
        for disk in tmp_path_factory.getbasetemp().glob(pattern):
            disk.unlink()
