"""A component's own build scripts at work, behind the sandbox' walls and without any network."""

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from scenarios.contract import Failed
from workers import sandbox

STAGE = "farm-stage: "  # what a script says before the stage that it begins
_DONE = "farm-built"
_WAIT = f"\necho {_DONE}\nexec cat\n"  # until the worker has read what was made, or has died
_LINES = 40


@contextlib.contextmanager
def built(
    name: str, script: str, walls: sandbox.Walls, *, timeout_s: float, lease: str, run_dir: Path
) -> Iterator[sandbox.Sandbox]:
    """Run a component's build to its end; within, what it made can be read.

    Raises Failed: stack, with stage and last words, when that does not work or takes too long.
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
    running = sandbox.start(walls, ["/bin/sh", "-c", script + _WAIT], lease=lease, run_dir=run_dir, on_line=take)
    try:
        deadline = time.monotonic() + timeout_s
        while _DONE not in words:
            during = f" (at: {stages[-1]})" if stages else ""
            if not running.alive():
                raise Failed("stack", f"component {name!r} cannot be built{during}: {_reason(words)}")
            if time.monotonic() > deadline:
                raise Failed(
                    "stack", f"component {name!r} is not built after {timeout_s:.0f} s{during}: {_reason(words)}"
                )
            news.wait(0.2)
            news.clear()
        yield running
    finally:
        running.end()


def _reason(words: list[str]) -> str:
    telling = [line for line in words if "error" in line.lower()] or [line for line in words if line][-3:]
    return " | ".join(telling)[-400:] or "nothing was said"
