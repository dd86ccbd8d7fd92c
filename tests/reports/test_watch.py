"""The publication process, with the real judgement: what comes in is judged and published by itself."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from farm.results import queries
from reports.watch import watch

_TIMEOUT_S = 60.0


@contextmanager
def watching(farm: Any) -> Iterator[threading.Thread]:
    stop = threading.Event()
    thread = threading.Thread(target=watch, args=(farm.settings, stop))
    thread.start()
    try:
        yield thread
    finally:
        stop.set()
        thread.join(_TIMEOUT_S)
    assert not thread.is_alive()


def wait_until_told(farm: Any, page: str, text: str, thread: threading.Thread) -> None:
    give_up_at = time.monotonic() + _TIMEOUT_S
    while not (farm.settings.site_dir / page).is_file() or text not in (farm.settings.site_dir / page).read_text():
        assert thread.is_alive(), "the publisher ended"
        assert time.monotonic() < give_up_at, f"{page} never told {text!r}"
        time.sleep(0.1)


def test_what_comes_in_is_judged_and_published(farm: Any) -> None:
    with watching(farm) as thread:
        wait_until_told(farm, "index.html", "Nothing has been measured yet", thread)
        farm.see_check_ins()
        farm.measure("acorn", 0)
        wait_until_told(farm, "sessions/acorn0.html", "Accepted", thread)
        assert queries.newest_analysis(farm.engine) is not None


def test_a_bad_inventory_file_is_told_once_and_the_last_good_one_stands(
    farm: Any, caplog: pytest.LogCaptureFixture
) -> None:
    file = farm.settings.farm.inventory / "acorn.toml"
    with watching(farm) as thread:
        wait_until_told(farm, "index.html", "Acorn Hosting", thread)
        file.write_text(file.read_text().replace("statement", "statment"))
        farm.see_check_ins()
        wait_until_told(farm, "revisions/index.html", "Pack all drivers", thread)
        time.sleep(2.5)
    complaints = [record.getMessage() for record in caplog.records if "statment" in record.getMessage()]
    assert len(complaints) == 1
    assert "did you mean 'statement'" in complaints[0]
