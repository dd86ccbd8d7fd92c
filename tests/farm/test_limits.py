"""Figures beyond what is possible are void for a whole session, in judgement and figures, and nothing is rewritten."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from farm.analysis.rules import BEYOND_LIMIT
from farm.limits import best_by_epoch, held_samples, hold
from farm.results import queries
from farm.results.queries import EVERYTHING
from farm.results.tables import Bundle, ProbeRow
from scenarios.crossing import Plan
from tests.helpers.bundles import PARENT, SUBJECT, Draft, a_plan
from tests.helpers.farmhouse import Farmhouse, build_farmhouse


@pytest.fixture
def farmhouse(tmp_path: Path) -> Farmhouse:
    return build_farmhouse(tmp_path)


def a_boot(answer_ms: float, cpu_s: float = 2.0, subject_ms: float | None = None) -> Any:
    """Values of a draft in which every guest needs `cpu_s` and answers after `answer_ms`."""
    values = {"answer_ms": answer_ms, "qemu_cpu_s": cpu_s, "total_ms": 900.0}

    def value(revision: str, scenario: str, metric: str, block: int) -> float:
        return subject_ms if metric == "answer_ms" and revision == SUBJECT and subject_ms else values[metric]

    return value


def take_in(farmhouse: Farmhouse, session: str, value: Any, cores: str = "2") -> Plan:
    plan = a_plan(farmhouse.inventory["acorn"], session)
    draft = Draft(plan, value=value)
    for its in draft.facts["hosts"].values():
        its["cores"] = cores
    farmhouse.take_in(plan, draft)
    return plan


def states(farmhouse: Farmhouse, **wanted: str) -> set[tuple[str, str, bool]]:
    frame = held_samples(farmhouse.engine, EVERYTHING, **wanted)
    return set(zip(frame["session"], frame["metric"], frame["valid"].astype(bool), strict=True))


def test_a_figure_stands_beside_its_limit(farmhouse: Farmhouse) -> None:
    take_in(farmhouse, "s1", a_boot(2500.0))
    frame = held_samples(farmhouse.engine, EVERYTHING, metric="answer_ms")
    assert set(frame["limit"]) == {1000.0}
    assert set(frame["share"]) == {0.4}
    assert set(frame["limit_why"]) == {"2 s of CPU time ÷ 2 processors"}
    assert held_samples(farmhouse.engine, EVERYTHING, metric="qemu_cpu_s")["limit"].isna().all()


def test_more_than_possible_voids_the_metric_of_the_session_for_every_revision(farmhouse: Farmhouse) -> None:
    take_in(farmhouse, "s1", a_boot(2500.0))
    take_in(farmhouse, "s2", a_boot(1000.0 / 1.2))
    assert states(farmhouse, scenario="boot") == {
        ("s1", "answer_ms", True),
        ("s1", "qemu_cpu_s", True),
        ("s2", "answer_ms", False),
        ("s2", "qemu_cpu_s", True),
    }
    void = held_samples(farmhouse.engine, EVERYTHING, session="s2", metric="answer_ms", revision=PARENT)
    assert set(void["void_reason"]) == {
        "a revision of this session is at 120 % of what is possible here: 2 s of CPU time ÷ 2 processors"
    }
    stored = queries.samples(farmhouse.engine, EVERYTHING, session="s2")
    assert stored["valid"].all()


def test_what_one_revision_cannot_have_done_voids_the_metric_for_all(farmhouse: Farmhouse) -> None:
    """One revision of three claims five times what is possible: nobody is judged by it, and no other metric cares."""
    take_in(farmhouse, "s1", a_boot(2500.0, subject_ms=200.0))
    take_in(farmhouse, "s2", a_boot(2500.0))
    assert {place for place in states(farmhouse, scenario="boot") if not place[2]} == {("s1", "answer_ms", False)}
    void = held_samples(farmhouse.engine, EVERYTHING, session="s1", metric="answer_ms")
    assert len(set(void["revision"])) == 3


def test_single_samples_beyond_the_limit_are_never_picked_out(farmhouse: Farmhouse) -> None:
    """One block of three is beyond the possible: the revision's median is not, and all three count."""

    def value(revision: str, scenario: str, metric: str, block: int) -> float:
        return {"qemu_cpu_s": 2.0, "answer_ms": 200.0 if block == 1 else 2500.0}.get(metric, 900.0)

    plan = a_plan(farmhouse.inventory["acorn"], "s1", blocks=3)
    draft = Draft(plan, value=value)
    for its in draft.facts["hosts"].values():
        its["cores"] = "2"
    farmhouse.take_in(plan, draft)
    assert all(valid for _, _, valid in states(farmhouse))


@pytest.mark.parametrize(("share", "counts"), [(BEYOND_LIMIT - 0.001, True), (BEYOND_LIMIT + 0.001, False)])
def test_ten_percent_are_the_probes_own_error(farmhouse: Farmhouse, share: float, counts: bool) -> None:
    take_in(farmhouse, "s1", a_boot(1000.0 / share))
    assert ("s1", "answer_ms", counts) in states(farmhouse)


@pytest.mark.parametrize("cores", ["0", "-1", "many", "1e9", "½", "1234567890", ""])
def test_hosts_that_tell_nonsense_have_no_limit(farmhouse: Farmhouse, cores: str) -> None:
    take_in(farmhouse, "s1", a_boot(1.0), cores=cores)
    assert held_samples(farmhouse.engine, EVERYTHING)["limit"].isna().all()


def a_probe(template: ProbeRow, **changed: Any) -> ProbeRow:
    names = (column.name for column in ProbeRow.__table__.columns if column.name != "id")
    columns = {name: getattr(template, name) for name in names}
    return ProbeRow(**{**columns, **changed})


def test_the_limit_is_the_best_of_its_epoch_and_cluster(farmhouse: Farmhouse) -> None:
    """A later session that finds a faster link lets an earlier one count; one of another epoch or cluster does not."""
    plan = a_plan(farmhouse.inventory["acorn"], "s1")
    draft = Draft(plan)
    farmhouse.take_in(plan, draft)
    probe = queries.probes(farmhouse.engine, EVERYTHING)[-1]
    slow = a_probe(probe, kind="network", at="h1", to="h2", value=100.0)
    slows = [slow, a_probe(slow, value=90.0), a_probe(slow, value=80.0)]
    fast, elsewhere = a_probe(slow, value=4000.0, block=1), a_probe(slow, value=9000.0, epoch="another")
    best = best_by_epoch([*slows, fast, elsewhere, a_probe(slow, value=8000.0, cluster="birch")])
    assert best[probe.cluster, probe.epoch] == {("network", "h1", "h2"): 4000.0}
    assert len(best) == 3

    samples = queries.samples(farmhouse.engine, EVERYTHING, scenario="live_migration")
    sent = samples.assign(metric="sent_mib", value=400.0)
    moves = samples.assign(value=2000.0)
    frame = pd.concat([moves, sent], ignore_index=True)
    bundles: list[Bundle] = queries.bundles(farmhouse.engine, EVERYTHING)
    assert not hold(frame, slows, bundles)["valid"][: len(moves)].any()  # 4 s at least, and 2 s are claimed
    assert hold(frame, [*slows, fast], bundles)["valid"].all()
    assert hold(frame, slows[:2], bundles)["valid"].all()


@pytest.mark.parametrize(
    "settings", [{}, {"swift": None}, {"swift": "three"}, {"swift": []}, {"swift": {"replicas": {}}}]
)
@pytest.mark.parametrize("params", [{}, {"guests": "many"}, {"guests": "0"}, {"guests": ""}])
def test_nonsense_in_a_bundle_is_no_limit_and_no_crash(
    farmhouse: Farmhouse, settings: dict[str, Any], params: dict[str, str]
) -> None:
    plan = a_plan(farmhouse.inventory["acorn"], "s1")
    draft = Draft(plan, value=lambda *place: 0.0)
    for build in draft.manifest["builds"]:
        build["settings"] = settings
    for record in (*draft.samples, *draft.manifest["outcomes"]):
        record["params"] = params
    for its in draft.facts["hosts"].values():
        its["cores"] = "2"
    draft.facts["sizes_mib"] = {"base image": -1.0}
    farmhouse.take_in(plan, draft)
    frame = held_samples(farmhouse.engine, EVERYTHING)
    assert len(frame) == len(draft.samples)
    assert set(frame[frame["limit"].notna()]["metric"]) <= {"answer_ms"}
