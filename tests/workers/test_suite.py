"""The stack's own tests: run behind walls against what is deployed, told one by one."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from scenarios import recipe, stack_tests
from scenarios.contract import Failed
from scenarios.crossing import PlannedBuild
from scenarios.strict import BadData, from_data
from tests.helpers.check_ins import FARM_HOME, example_lock
from tests.helpers.object_stores import storage_bed
from tests.helpers.releases import repository_of
from workers.bench import SessionBench
from workers.builds import Workshop, resolve
from workers.sheet import Place, RoundSheet
from workers.stacks.suites import SandboxedSuite, results_of

REQUIREMENTS = ["pytest==8.4.2", "python-swiftclient==4.8.0"]
DIGEST = " --hash=sha256:" + "a" * 64
BREAKS = "import unittest\n\n\nclass TestMore(unittest.TestCase):\n    def test_it(self):\n        assert 1 == 2\n"


def planned(folder: Path) -> PlannedBuild:
    """Swift's release, with a test added that fails."""
    repository, _ = repository_of(folder / "swift", "swift==2.38.3")
    (folder / "swift/test/functional/test_more.py").write_text(BREAKS)
    repository.git("add", "--all", "--force")
    commit = repository.commit("Add a test that fails")
    data = {
        "stack": {"name": "swift", "deployer": "swift"},
        "component": [{"name": "swift", "source": {"git": str(repository.path), "commit": commit}}],
        "lock": "swift.lock",
        "tests": {
            "component": "swift",
            "paths": ["test/functional/test_dlo.py", "test/functional/test_more.py"],
            "requirements": REQUIREMENTS,
        },
    }
    return PlannedBuild("r" * 64, "swift", ("subject",), str(repository.path), commit, data, example_lock())


@pytest.mark.machine
def test_every_test_of_the_suite_has_an_outcome(tmp_path: Path) -> None:
    build = resolve(planned(tmp_path), Workshop(FARM_HOME, "suite", tmp_path / "session"))
    with storage_bed(FARM_HOME, "suite", 8) as bed, bed.deploy(build) as deployment:
        suite = SandboxedSuite(
            build,
            bed.cluster.storage.network_namespace,
            deployment.for_tests,
            lease=bed.mark.session,
            run_dir=tmp_path / "run",
        )
        sheet = RoundSheet(stack_tests.SCENARIO, Place("s", 1, 0, 0, 0, "r"))
        with SessionBench([], None, lambda: 0.0, suite) as bench:
            stack_tests.SCENARIO.measure(bench, sheet, {})
    outcomes = {outcome.params.get("test", ""): outcome for outcome in sheet.outcomes()}
    values = {sample.metric: sample.value for sample in sheet.samples()}
    failed = [name for name, outcome in outcomes.items() if outcome.outcome == "failed"]
    assert failed == ["test.functional.test_more.TestMore.test_it"], {n: outcomes[n].reason for n in failed}
    assert "assert 1 == 2" in (outcomes[failed[0]].reason or "")
    assert outcomes[failed[0]].fault == "stack"
    assert values["passed"] >= 10
    assert values["failed"] == 1
    assert len(outcomes) - 1 == values["passed"] + values["failed"] + values["skipped"]


@pytest.mark.machine
def test_of_a_suite_from_the_index_only_the_bits_are_taken_that_its_recipe_names(tmp_path: Path) -> None:
    tests = {"paths": ["pluggy"], "requirements": ["pluggy==1.6.0" + DIGEST]}
    data = {
        "stack": {"name": "swift", "deployer": "swift"},
        "component": [{"name": "swift", "source": {"pypi": "swift==2.38.3"}}],
        "lock": "swift.lock",
        "tests": tests,
    }
    build = PlannedBuild("r" * 64, "swift", ("subject",), "", "", data, example_lock())
    with pytest.raises(
        Failed, match="the requirements of the stack's tests do not name pluggy==1.6.0 --hash="
    ) as failed:
        resolve(build, Workshop(FARM_HOME, "suite", tmp_path / "session"))
    assert failed.value.fault == "farm"


@pytest.mark.parametrize(
    ("report", "told"),
    [
        (b"<nonsense", "cannot be read"),
        (b"", "cannot be read"),
        (b"<testsuite>" + b"<testcase/>" * 5001 + b"</testsuite>", "are 5001, more than 5000"),
        (b'<!DOCTYPE x [<!ENTITY a "' + b"a" * 9000 + b'">]><x>' + b"&a;" * 9000 + b"</x>", "cannot be read"),
    ],
)
def test_a_report_that_is_none_is_the_stacks_fault(report: bytes, told: str) -> None:
    with pytest.raises(Failed, match=told) as failed:
        results_of(report, recipe.TestsSettings(("a",), ()))
    assert failed.value.fault == "stack"


def test_a_test_that_fails_and_then_cannot_clear_up_has_failed_once() -> None:
    case = b'<testcase classname="a.B" name="c" time="%s">%s</testcase>'
    report = b"<testsuites><testsuite>%s%s%s%s</testsuite></testsuites>" % (
        case % (b"0.5", b'<failure message="no &#10;way">long</failure>'),
        case % (b"x", b'<error message="twice"/>'),
        b'<testcase classname="a.B" name="d"><skipped message="not here"/></testcase>',
        b'<testcase classname="a.B" name="e"/>',
    )
    assert told_of(report, recipe.TestsSettings(("a",), ())) == [
        ("a.B.c", "failed", "no  way"),
        ("a.B.d", "skipped", "not here"),
        ("a.B.e", "passed", ""),
    ]


TRACEBACK = """NOTE: displaying natively:

testtools._StringException: pythonlogging:'': {{{2026 INFO Request: 404 GET http://10.0.0.1/v2.1/flavors/x}}}

Traceback (most recent call last):
  File "/tests/tempest/api/compute/test_flavors.py", line 59, in test_get_flavor
    flavor = self.client.show_flavor("x")
             ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
tempest.lib.exceptions.NotFound: Object not found
Details: {'code': 404}"""


def test_of_a_whole_traceback_the_error_is_told_and_the_component_that_the_test_asked() -> None:
    report = ElementTree.Element("testsuite")
    for name in ("tempest.api.compute.flavors.One", "tempest.api.computer.Two", "tempest.scenario.Three"):
        case = ElementTree.SubElement(report, "testcase", classname=name, name="c")
        ElementTree.SubElement(case, "failure", message=TRACEBACK)
    asks = {"tempest.api": "keystone", "tempest.api.compute": "nova"}
    error = "tempest.lib.exceptions.NotFound: Object not found Details: {'code': 404}"
    assert told_of(ElementTree.tostring(report), recipe.TestsSettings(("a",), (), asks=asks)) == [
        ("tempest.api.compute.flavors.One.c", "failed", f"component 'nova' (at: tests): {error}"),
        ("tempest.api.computer.Two.c", "failed", f"component 'keystone' (at: tests): {error}"),
        ("tempest.scenario.Three.c", "failed", error),
    ]


def told_of(report: bytes, settings: recipe.TestsSettings) -> list[tuple[str, str, str]]:
    return [(result.name, result.outcome, result.told) for result in results_of(report, settings)]


@pytest.mark.parametrize(
    ("tests", "told"),
    [
        ({"requirements": ["pytest"]}, "must be a pin such as"),
        ({"requirements": ["pytest==8.4.2 --hash=sha256:abc"]}, "must be a pin such as"),
        ({"requirements": ["pytest==8.4.2 --hash=sha256:"]}, "must be a pin such as"),
        ({"requirements": ["pytest==8.4.2" + DIGEST, "pluggy==1.6.0"]}, "all of them have a digest, or none"),
        ({"paths": ["../secrets"]}, "must be a path inside"),
        ({"component": "glance"}, "there is no component 'glance'"),
        ({"asks": {"test": "glance"}}, "there is no component 'glance'"),
    ],
)
def test_a_suite_that_cannot_be_is_refused_with_the_recipe(tests: dict[str, object], told: str) -> None:
    data = {
        "stack": {"name": "swift", "deployer": "swift"},
        "component": [{"name": "swift", "source": {"pypi": "swift==2.38.3"}}],
        "tests": {"paths": ["test"], "requirements": ["pytest==8.4.2" + DIGEST], **tests},
    }
    with pytest.raises(BadData, match=told):
        from_data(data, recipe.Recipe, source="stack.toml")
