"""The stack's own tests, run behind walls of their own on the network of what is deployed (scenarios.contract.Suite).

The suite is code under test like the stack itself. What it says of its tests is read from one file of pytest's form,
with nothing of it believed but names, outcomes and words.
"""

import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scenarios.contract import Failed, TestResult
from workers import sandbox
from workers.builds import Build

MOST_TESTS = 5000
_REPORT, _REPORT_BYTES = "/out/results.xml", 32 << 20
_NAME_CHARACTERS, _TOLD_CHARACTERS = 200, 400
_DONE = "farm-suite-ended"
_SCRIPT = f"""
cd /tests
/usr/bin/python3 -W ignore -m pytest -q -p no:cacheprovider --junitxml={_REPORT} "$@"
echo {_DONE}
exec cat
"""  # waits, until the worker has read the report, or has died


@dataclass
class SandboxedSuite:
    """pytest over the recipe's paths; `texts` and `environment` tell it where the deployment is."""

    build: Build
    network_namespace: Path
    texts: Mapping[str, str]
    environment: Mapping[str, str]
    lease: str
    run_dir: Path
    words: list[str] = field(default_factory=list)

    def run(self, *, timeout_s: float) -> Sequence[TestResult]:
        assert self.build.recipe.tests is not None  # or nobody has made this
        news = threading.Event()

        def take(line: bytes) -> None:
            text = line.decode("utf-8", "replace").strip()
            self.words.append("".join(letter for letter in text if letter.isprintable()))
            del self.words[:-40]
            news.set()

        self.run_dir.mkdir(parents=True, mode=0o700)
        command = ["/bin/sh", "-c", _SCRIPT, "sh", *self.build.recipe.tests.paths]
        running = sandbox.start(self._walls(), command, lease=self.lease, run_dir=self.run_dir, on_line=take)
        try:
            deadline = time.monotonic() + timeout_s
            while _DONE not in self.words:
                if not running.alive():
                    raise Failed("stack", f"the stack's tests ended early: {self._last_words()}")
                if time.monotonic() > deadline:
                    raise Failed("stack", f"the stack's tests did not end within {timeout_s:g} s: {self._last_words()}")
                news.wait(0.2)
                news.clear()
            report = running.read(_REPORT, _REPORT_BYTES)
        finally:
            running.end()
        if not report:
            raise Failed("stack", f"the stack's tests did not begin: {self._last_words()}")
        return results_of(report)

    def _walls(self) -> sandbox.Walls:
        build, tests = self.build, self.build.tests
        assert tests is not None
        code = {f"/code/{name}": folder for name, folder in build.code.items()}
        path = ":".join(["/tests", *code, "/code/libraries", "/test-libraries"])
        return sandbox.Walls(
            network_namespace=self.network_namespace,
            folders={
                **code,
                "/code/libraries": build.environment,
                "/tests": tests.source,
                "/test-libraries": tests.libraries,
            },
            texts=self.texts,
            disks={},
            writable=("/out", "/dev/shm"),
            environment={"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/tmp", **self.environment},
            processes=256,
            memory_mib=4096,
        )

    def _last_words(self) -> str:
        return " | ".join(self.words[-3:])[-_TOLD_CHARACTERS:] or "nothing was said"


def results_of(report: bytes) -> list[TestResult]:
    """What a report of pytest's (JUnit's form) tells; raises Failed (stack) for what is none."""
    try:
        cases = list(ET.fromstring(report).iter("testcase"))
    except ET.ParseError as error:
        raise Failed("stack", f"the report of the stack's tests cannot be read: {error}") from None
    if len(cases) > MOST_TESTS:
        raise Failed("stack", f"the stack's tests are {len(cases)}, more than {MOST_TESTS}")
    found: dict[str, TestResult] = {}
    for case in cases:
        result = _result(case)
        before = found.get(result.name)
        if before is None or before.outcome != "failed":  # a test whose clearing up fails too is told twice
            found[result.name] = result
    return list(found.values())


def _result(case: ET.Element) -> TestResult:
    name = _plain(f"{case.get('classname', '')}.{case.get('name', '')}", _NAME_CHARACTERS)
    for kind in case:
        told = _plain(kind.get("message") or (kind.text or "").strip(), _TOLD_CHARACTERS)
        if kind.tag in ("failure", "error"):
            return TestResult(name, "failed", told or "it gives no reason")
        if kind.tag == "skipped":
            return TestResult(name, "skipped", told or "it gives no reason")
    return TestResult(name, "passed", "")


def _plain(text: str, characters: int) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)[:characters].strip()
