"""Scripts of code under test, run behind the sandbox' walls to their end; what they made can then be read."""

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from scenarios.contract import Failed
from workers import sandbox

STAGE = "farm-stage: "  # what a script says before the stage that it begins
_DONE = "farm-ended"
_WAIT = f"\necho {_DONE}\nexec cat\n"  # until the worker has read what was made, or has died
_NOISE = (STAGE, "note: This error originates from a subprocess", "\N{MULTIPLICATION SIGN} Encountered error")
_LINES, _CHARACTERS = 40, 400


@dataclass(frozen=True)
class Ended:
    """A script at its end, still behind its walls."""

    sandbox: sandbox.Sandbox
    words: Sequence[str]

    def last_words(self) -> str:
        """What tells of its failure, for people."""
        said = [line for line in self.words if not line.startswith(_NOISE)]
        telling = [line for line in said if "error" in line.lower()] or [line for line in said if line][-3:]
        return " | ".join(telling)[-_CHARACTERS:] or "nothing was said"


@contextlib.contextmanager
def ended(
    failing: str,
    script: str,
    walls: sandbox.Walls,
    *,
    timeout_s: float,
    lease: str,
    run_dir: Path,
    arguments: Sequence[str] = (),
) -> Iterator[Ended]:
    """Run a shell script to its end.

    Raises Failed: stack, beginning with `failing`, with stage and last words, when it exits before or takes too long.
    """
    words: list[str] = []
    stages: list[str] = []
    news = threading.Event()

    def take(line: bytes) -> None:
        text = "".join(letter for letter in line.decode("utf-8", "replace").strip() if letter.isprintable())
        if text.startswith(STAGE):
            stages.append(text.removeprefix(STAGE))
        words.append(text)
        del words[:-_LINES]
        news.set()

    run_dir.mkdir(parents=True, mode=0o700)
    command = ["/bin/sh", "-c", script + _WAIT, "sh", *arguments]
    running = sandbox.start(walls, command, lease=lease, run_dir=run_dir, on_line=take)
    found = Ended(running, words)
    try:
        deadline = time.monotonic() + timeout_s
        while _DONE not in words:
            during = f" (at: {stages[-1]})" if stages else ""
            if not running.alive():
                raise Failed("stack", f"{failing}{during}: {found.last_words()}")
            if time.monotonic() > deadline:
                raise Failed("stack", f"{failing} within {timeout_s:g} s{during}: {found.last_words()}")
            news.wait(0.2)
            news.clear()
        yield found
    finally:
        running.end()
