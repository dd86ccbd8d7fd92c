"""The stack's own tests, run behind walls of their own on the network of what is deployed (scenarios.contract.Suite).

The suite is code under test like the stack itself. What it says of its tests is read from one file of pytest's form,
with nothing of it believed but names, outcomes and words.
"""

import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from scenarios.contract import Failed, TestResult
from scenarios.recipe import TestsSettings
from workers import sandbox, walled_scripts
from workers.builds import Build

MOST_TESTS = 5000
_REPORT, _REPORT_BYTES = "/out/results.xml", 32 << 20
_NAME_CHARACTERS, _TOLD_CHARACTERS = 200, 400
_TRACEBACK = "Traceback (most recent call last):"
_SCRIPT = f"""
cd /tests
/usr/bin/python3 -W ignore -m pytest -q -p no:cacheprovider --junitxml={_REPORT} "$@"
"""


@dataclass(frozen=True)
class Surroundings:
    """What tells the suite of the deployment: files behind its walls, and its environment."""

    texts: Mapping[str, str]
    environment: Mapping[str, str]


@dataclass
class SandboxedSuite:
    """pytest over the recipe's paths. `surroundings` holds what it needs of the deployment while it runs."""

    build: Build
    network_namespace: Path
    surroundings: Callable[[], AbstractContextManager[Surroundings]]
    lease: str
    run_dir: Path

    def run(self, *, timeout_s: float) -> Sequence[TestResult]:
        assert self.build.recipe.tests is not None  # or nobody has made this
        with (
            self.surroundings() as told,
            walled_scripts.ended(
                "the stack's tests did not end",
                _SCRIPT,
                self._walls(told),
                arguments=self.build.recipe.tests.paths,
                timeout_s=timeout_s,
                lease=self.lease,
                run_dir=self.run_dir,
            ) as suite,
        ):
            report = suite.sandbox.read(_REPORT, _REPORT_BYTES)
            if not report:
                raise Failed("stack", f"the stack's tests did not begin: {suite.last_words()}")
        return results_of(report, self.build.recipe.tests)

    def _walls(self, told: Surroundings) -> sandbox.Walls:
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
            texts=told.texts,
            disks={},
            writable=("/out", "/dev/shm"),
            environment={"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/tmp", **told.environment},
            processes=256,
            memory_mib=4096,
        )


def results_of(report: bytes, settings: TestsSettings) -> list[TestResult]:
    """What a report of pytest's (JUnit's form) tells; raises Failed (stack) for what is none."""
    try:
        cases = list(ET.fromstring(report).iter("testcase"))
    except ET.ParseError as error:
        raise Failed("stack", f"the report of the stack's tests cannot be read: {error}") from None
    if len(cases) > MOST_TESTS:
        raise Failed("stack", f"the stack's tests are {len(cases)}, more than {MOST_TESTS}")
    found: dict[str, TestResult] = {}
    for case in cases:
        result = _result(case, settings)
        before = found.get(result.name)
        if before is None or before.outcome != "failed":  # a test whose clearing up fails too is told twice
            found[result.name] = result
    return list(found.values())


def _result(case: ET.Element, settings: TestsSettings) -> TestResult:
    name = _plain(f"{case.get('classname', '')}.{case.get('name', '')}", _NAME_CHARACTERS)
    for kind in case:
        told = _plain(_last_word(kind.get("message") or (kind.text or "").strip()), _TOLD_CHARACTERS)
        told = told or "it gives no reason"
        if kind.tag in ("failure", "error"):
            asked = settings.asked_by(name)
            return TestResult(name, "failed", f"component '{asked}' (at: tests): {told}" if asked else told)
        if kind.tag == "skipped":
            return TestResult(name, "skipped", told)
    return TestResult(name, "passed", "")


def _last_word(told: str) -> str:
    """The error itself, where a test tells the whole way there and what was logged on it."""
    lines = told.splitlines()
    if _TRACEBACK not in lines:
        return told
    last = max(number for number, line in enumerate(lines) if line.startswith((_TRACEBACK, "  ")))
    return "\n".join(lines[last + 1 :])


def _plain(text: str, characters: int) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)[:characters].strip()
