"""What a guest tells on its console of its own boot: read when it is whole, and taken for nothing else."""

import threading
import time
from pathlib import Path

import pytest

from workers.hypervisors import console as consoles
from workers.hypervisors import ledger

WORDS = "FARM-READY abc"


@pytest.fixture
def console(tmp_path: Path) -> Path:
    return tmp_path / "console.log"


def test_the_numbers_of_a_whole_line_are_read(console: Path) -> None:
    console.write_bytes(b"FARM-INIT\r\nFARM-READY abc 12 345\r\n")
    assert ledger.told(str(console), WORDS, 0.0) == [12, 345]


@pytest.mark.parametrize(
    "text",
    ["", "FARM-READY abc 12 34", "FARM-READY other 1 2\n", "FARM-READY abc\n", "FARM-READY abc 1 [ 0.5] oops\n"],
    ids=["silent", "not-yet-whole", "another-guest", "no-numbers", "interleaved"],
)
def test_nothing_else_is_taken_for_it(console: Path, text: str) -> None:
    console.write_text(text)
    assert ledger.told(str(console), WORDS, 0.0) is None


def test_a_console_that_is_not_there_is_silent(console: Path) -> None:
    assert ledger.told(str(console), WORDS, 0.0) is None


def test_a_line_is_waited_for(console: Path) -> None:
    def speak() -> None:
        time.sleep(0.1)
        console.write_text("FARM-READY abc 1 2\n")

    threading.Thread(target=speak).start()
    assert ledger.told(str(console), WORDS, 10.0) == [1, 2]


def test_a_guest_that_is_not_there_has_no_process(console: Path) -> None:
    assert ledger.started_s("farm-0123456789ab-1") is None
    assert ledger.last_cpu_s("farm-0123456789ab-1", 0.0) == 0.0


def test_a_word_was_written_between_two_looks(console: Path) -> None:
    written_s = []

    def speak() -> None:
        time.sleep(0.1)
        console.write_text("before WORD\n")
        written_s.append(time.monotonic())

    threading.Thread(target=speak).start()
    seen = consoles.wait_for(str(console), "WORD", 10.0)
    assert seen is not None
    assert seen[0] < written_s[0] < seen[1] + 0.1  # our own note of it may be late
    assert consoles.wait_for(str(console), "ANOTHER", 0.01) is None
