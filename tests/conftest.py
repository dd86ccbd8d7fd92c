"""For every test.

Examples may take as long as they do, and what a module's clusters wrote to their disks is gone before the next one begins.
"""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# No test asserts times: how long one example takes tells of the machine's load
settings.register_profile("farm", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("farm")

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
