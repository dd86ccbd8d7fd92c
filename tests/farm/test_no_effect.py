"""What A/A sessions show of a change of the farm's code, from their bundles to the entry that somebody signs."""

import hashlib
import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from farm.limits import held_samples
from farm.no_effect import NoEvidence, evidence
from farm.results import queries
from farm.results.queries import EVERYTHING
from farm.settings import CHECKOUT
from scenarios import versions
from scenarios.contract import Metric, Scenario
from scenarios.crossing import harness_digest, to_data
from scenarios.parameters import Parameter
from scenarios.versions import Evidence, NoEffect, Recorded
from tests.helpers.bundles import CANARY, DECLARED, SUBJECT, Draft, a_build, a_plan, make_key
from tests.helpers.farmhouse import Farmhouse, build_farmhouse

OLD = "0" * 64
BUILDS = (a_build(SUBJECT, "subject"), a_build(CANARY, "base", "canary"))


API = Metric("api_ms", "ms", "lower", 0.25, "Request to the answer of an API, which these clusters do not have")


@dataclass
class Boot:
    """The scenario as the bundles of tests have it."""

    name: str = "boot"
    version: int = 1
    metrics: tuple[Metric, ...] = (*DECLARED["boot", 1].values(), API)
    parameters: tuple[Parameter, ...] = ()

    def measure(self, *_: Any) -> None:
        """Nobody asks it here."""


BOOT: Scenario = Boot()


@pytest.fixture
def farmhouse(tmp_path: Path) -> Farmhouse:
    return build_farmhouse(tmp_path)


def measure_aa(farmhouse: Farmhouse, harness: str, level: float, count: int = 3, **columns: Any) -> list[str]:
    """A/A sessions of this code, each a percent from the one before."""
    names = []
    for number in range(count):
        plan = replace(a_plan(farmhouse.inventory["acorn"], f"{harness[:3]}-{number}", builds=BUILDS), harness=harness)
        farmhouse.take_in(
            plan,
            Draft(plan, value=_around(level * (1 + 0.01 * number))),
            **{"purpose": "a/a", "base_revision": CANARY, "ordinal": number, **columns},
        )
        names.append(plan.session)
    return names


def _around(level: float) -> Callable[[str, str, str, int], float]:
    return lambda revision, scenario, metric, block: level if metric == "qemu_cpu_s" else 1000.0 * level


def found(farmhouse: Farmhouse, session: str) -> Evidence:
    rows = queries.sessions(farmhouse.engine, EVERYTHING), queries.bundles(farmhouse.engine, EVERYTHING)
    return evidence(session, BOOT, *rows, held_samples(farmhouse.engine, EVERYTHING), CHECKOUT)


def an_entry(told: Evidence, folder: Path, session: str, **changed: Any) -> NoEffect:
    """The evidence in the folder, as a checkout has it, and an entry that ann signs; `changed` before she does."""
    text = json.dumps(to_data(told)).encode()
    file = folder / versions.evidence_file(session, "boot")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text)
    key = folder / "key"
    if not key.exists():
        make_key(key)
        (folder / "scenarios").mkdir()
        (folder / "scenarios/no-effect.signers").write_text(f"ann {key.with_suffix('.pub').read_text()}")
    digest = hashlib.sha256(text).hexdigest()
    entry = NoEffect("boot", 1, "scenario=aaaa", told.digest, "a variable renamed", session, digest, "ann", "")
    entry = replace(entry, **changed)
    arguments = ["ssh-keygen", "-q", "-Y", "sign", "-f", str(key), "-n", versions.NAMESPACE]
    signed = subprocess.run(arguments, input=entry.statement, text=True, capture_output=True, check=True, timeout=20)
    return replace(entry, signature=signed.stdout)


def complaints(entry: NoEffect, folder: Path) -> list[str]:
    recorded = Recorded({"boot": {"1": "scenario=aaaa"}}, no_effect=(entry,))
    return versions.check(recorded, {"boot": (1, versions.digest_of(CHECKOUT, "boot"))}, folder)


def test_sessions_that_differ_by_nothing_let_a_version_stay(farmhouse: Farmhouse, tmp_path: Path) -> None:
    old = measure_aa(farmhouse, OLD, 100.0)
    new = measure_aa(farmhouse, harness_digest(CHECKOUT), 101.0)
    told = found(farmhouse, new[0])
    assert ({one.session for one in told.old}, {one.session for one in told.new}) == (set(old), set(new))
    assert {(one.metric, one.delta, one.shown) for one in told.metrics} == {
        ("answer_ms", 0.1, True),
        ("qemu_cpu_s", 0.1, True),
    }
    assert all(one.low < 1.01 < one.high for one in told.metrics)
    assert told.absent == ("api_ms",)
    assert complaints(an_entry(told, tmp_path / "clone", new[0]), tmp_path / "clone") == []


def test_a_change_that_moved_a_figure_may_not_keep_its_version(farmhouse: Farmhouse, tmp_path: Path) -> None:
    """Signed all the same: the evidence says otherwise, and a spoilt one does not follow from its own values."""
    measure_aa(farmhouse, OLD, 100.0)
    session = measure_aa(farmhouse, harness_digest(CHECKOUT), 112.0)[0]
    told, folder = found(farmhouse, session), tmp_path / "clone"
    assert not any(one.shown for one in told.metrics)
    (line,) = complaints(an_entry(told, folder, session), folder)
    assert "does not show that nothing changed: answer_ms" in line

    better = tuple(replace(one, ratio=1.0, low=0.99, high=1.01, shown=True) for one in told.metrics)
    (line,) = complaints(an_entry(replace(told, metrics=better), folder, session), folder)
    assert "tells a ratio of answer_ms {} that is not its values'" in line


def test_evidence_is_of_the_signed_file_the_change_and_the_session(farmhouse: Farmhouse, tmp_path: Path) -> None:
    measure_aa(farmhouse, OLD, 100.0)
    session = measure_aa(farmhouse, harness_digest(CHECKOUT), 100.0)[0]
    told, folder = found(farmhouse, session), tmp_path / "clone"
    same_code = tuple(replace(one, harness=told.new[0].harness) for one in told.old)
    wider = tuple(replace(one, delta=0.5) for one in told.metrics)
    for spoilt, complaint in (
        (replace(told, digest="scenario=bbbb"), "is of boot 1 with the code scenario=bbbb"),
        (replace(told, new=told.old), f"does not have session {session}"),
        (replace(told, old=same_code), "holds code against itself"),
        (replace(told, metrics=told.metrics[:1]), "says nothing of qemu_cpu_s"),
        (replace(told, metrics=wider), "which its scenario does not declare"),
        (replace(told, level=0.5), "tells intervals of 0.5"),
    ):
        entry = an_entry(spoilt, folder, session, new=told.digest)
        (line,) = complaints(entry, folder)
        assert complaint in line

    entry = an_entry(told, folder, session)
    (folder / entry.file).write_text("{}")
    assert "is not the file that was signed for" in complaints(entry, folder)[0]
    (folder / entry.file).unlink()
    assert "is not there" in complaints(entry, folder)[0]


def test_sessions_that_show_nothing_say_why(farmhouse: Farmhouse) -> None:
    new = measure_aa(farmhouse, harness_digest(CHECKOUT), 100.0)
    old = measure_aa(farmhouse, OLD, 100.0, count=2)
    measure_aa(farmhouse, "1" * 64, 100.0, purpose="check-in")
    with pytest.raises(NoEvidence, match="3 A/A sessions of this code and 2 of other code"):
        found(farmhouse, new[0])
    with pytest.raises(NoEvidence, match="ran other code"):
        found(farmhouse, old[0])
    for name in ("111-0", "nothing"):
        with pytest.raises(NoEvidence, match=f"{name} is no A/A session"):
            found(farmhouse, name)
