"""What readers get: whole samples with their surroundings, and for the public nothing that is private."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from farm.results import queries
from farm.results.database import transact
from farm.results.queries import EVERYTHING, Scope, public_scope
from farm.results.tables import Analysis, CheckIn, ComparisonRow, Finding
from farm.results.writing import write_analysis
from tests.helpers.bundles import CANARY, PARENT, SUBJECT, Draft, a_build, a_plan
from tests.helpers.farmhouse import NOON, Farmhouse

OURS = {"tenant": "local", "account": "local"}


def measure(farmhouse: Farmhouse, session: str, cluster: str = "acorn", **columns: Any) -> None:
    farmhouse.take_in(a_plan(farmhouse.inventory[cluster], session), **columns)


def a_check_in(number: int, visibility: str = "public", repository: str = "example") -> CheckIn:
    return CheckIn(
        repository=repository,
        number=number,
        revision=f"{number:064d}",
        commit=f"{number:040d}",
        parent_revision=None,
        subject_line=f"change {number}",
        author="A. Author",
        committed_at=NOON,
        seen_at=NOON,
        visibility=visibility,
        **OURS,
    )


def a_comparison(cluster: str = "acorn", other: str | None = None, visibility: str = "public") -> ComparisonRow:
    return ComparisonRow(
        between="clusters" if other else "revisions",
        cluster=cluster,
        other_cluster=other,
        repository="example",
        revision=SUBJECT,
        other_revision=None if other else PARENT,
        scenario="boot",
        version=1,
        metric="answer_ms",
        unit="ms",
        params={},
        ratio=1.5,
        low=1.4,
        high=1.6,
        n=5,
        replication="block",
        sessions=3,
        delta=0.1,
        verdict="different",
        fidelity="emulated",
        visibility=visibility,
        **OURS,
    )


def a_finding(key: str = "k", cluster: str = "acorn", visibility: str = "public", found_at: Any = NOON) -> Finding:
    return Finding(
        key=key,
        kind="product",
        state="confirmed",
        cluster=cluster,
        repository="example",
        revision=SUBJECT,
        last_good=PARENT,
        direction="slower",
        metrics=[{"scenario": "boot", "ratio": 1.5}],
        found_at=found_at,
        visibility=visibility,
        **OURS,
    )


def judge(farmhouse: Farmhouse, comparisons: list[ComparisonRow], findings: list[Finding], version: int = 1) -> int:
    return write_analysis(
        farmhouse.engine,
        version=version,
        cause=queries.cause_digest(farmhouse.engine),
        made_at=NOON,
        comparisons=comparisons,
        findings=findings,
    )


def test_samples_come_with_everything_that_says_what_they_are(farmhouse: Farmhouse) -> None:
    measure(farmhouse, "s1")

    samples = queries.samples(farmhouse.engine, EVERYTHING)

    assert tuple(samples.columns) == queries.SAMPLE_COLUMNS
    assert len(samples) == 18
    row = samples[(samples.metric == "total_ms") & (samples.revision == SUBJECT) & (samples.block == 1)].iloc[0]
    told = {name: row[name] for name in ("session", "repository", "cluster", "roles", "unit", "value", "fidelity")}
    assert told == {
        "session": "s1",
        "repository": "example",
        "cluster": "acorn",
        "roles": ("subject",),
        "unit": "ms",
        "value": 101.0,
        "fidelity": "emulated",
    }
    assert json.loads(row.hosts) == {"source": "h1", "target": "h2"}
    assert row.canary == CANARY
    assert row.taken_at.isoformat() == "2026-01-01T00:01:00+00:00"


def test_no_samples_are_an_empty_frame_with_the_same_columns(farmhouse: Farmhouse) -> None:
    samples = queries.samples(farmhouse.engine, EVERYTHING)

    assert (len(samples), tuple(samples.columns)) == (0, queries.SAMPLE_COLUMNS)


@pytest.mark.parametrize(
    ("wanted", "count"),
    [
        ({}, 36),
        ({"cluster": "birch"}, 18),
        ({"session": "s1"}, 18),
        ({"session": "s1", "scenario": "boot"}, 12),
        ({"metric": "total_ms"}, 12),
        ({"revision": CANARY, "metric": "total_ms", "cluster": "acorn"}, 2),
        ({"repository": "example"}, 36),
        ({"repository": "other"}, 0),
    ],
)
def test_samples_can_be_narrowed(farmhouse: Farmhouse, wanted: dict[str, str], count: int) -> None:
    measure(farmhouse, "s1")
    measure(farmhouse, "s2", "birch")

    assert len(queries.samples(farmhouse.engine, EVERYTHING, **wanted)) == count


def test_build_with_several_roles_shows_them_all(farmhouse: Farmhouse) -> None:
    builds = (a_build(SUBJECT, "subject"), a_build(PARENT, "parent", "canary"))
    farmhouse.take_in(a_plan(farmhouse.inventory["acorn"], builds=builds))

    samples = queries.samples(farmhouse.engine, EVERYTHING)
    assert set(samples.roles) == {("subject",), ("parent", "canary")}


def test_check_ins_come_in_the_order_of_history(farmhouse: Farmhouse) -> None:
    transact(farmhouse.engine, lambda transaction: transaction.add_all(a_check_in(n) for n in (2, 1, 3)))

    assert [row.number for row in queries.check_ins(farmhouse.engine, EVERYTHING)] == [1, 2, 3]
    assert queries.check_ins(farmhouse.engine, EVERYTHING, repository="other") == []


def test_sessions_can_be_found_by_state_and_id(farmhouse: Farmhouse) -> None:
    measure(farmhouse, "s1")
    farmhouse.issue(a_plan(farmhouse.inventory["birch"], "s2"), state="queued")

    assert [row.id for row in queries.sessions(farmhouse.engine, EVERYTHING, states=["queued"])] == ["s2"]
    assert [row.id for row in queries.sessions(farmhouse.engine, EVERYTHING, cluster="acorn")] == ["s1"]
    found = queries.session(farmhouse.engine, EVERYTHING, "s1")
    assert found is not None
    assert found.state == "done"
    assert queries.session(farmhouse.engine, EVERYTHING, "s9") is None


def test_newest_analysis_stands_and_the_earlier_ones_are_kept(farmhouse: Farmhouse) -> None:
    assert queries.newest_analysis(farmhouse.engine) is None
    judge(farmhouse, [a_comparison(), a_comparison("birch")], [a_finding("old")], version=1)
    newest = judge(farmhouse, [a_comparison("birch")], [a_finding("new")], version=2)

    standing = queries.newest_analysis(farmhouse.engine)
    assert standing is not None
    assert (standing.id, standing.version) == (newest, 2)
    assert [row.cluster for row in queries.comparisons(farmhouse.engine, EVERYTHING)] == ["birch"]
    assert [row.key for row in queries.findings(farmhouse.engine, EVERYTHING)] == ["new"]
    assert farmhouse.count(ComparisonRow) == 3
    assert farmhouse.count(Finding) == 2


def test_finding_that_is_confirmed_again_keeps_the_time_it_was_found(farmhouse: Farmhouse) -> None:
    later = NOON.replace(hour=18)
    judge(farmhouse, [], [a_finding("k", found_at=NOON)])
    judge(farmhouse, [], [a_finding("k", found_at=later), a_finding("other", found_at=later)])

    found = {row.key: row.found_at for row in queries.findings(farmhouse.engine, EVERYTHING)}
    assert found == {"k": NOON, "other": later}


def test_analysis_is_written_whole_or_not_at_all(farmhouse: Farmhouse) -> None:
    broken = a_finding("twice"), a_finding("twice")

    with pytest.raises(Exception, match="UNIQUE|unique"):
        judge(farmhouse, [a_comparison()], list(broken))
    assert queries.newest_analysis(farmhouse.engine) is None
    assert farmhouse.count(Analysis) == farmhouse.count(ComparisonRow) == 0


def test_cause_changes_with_accepted_bundles_only(farmhouse: Farmhouse) -> None:
    nothing = queries.cause_digest(farmhouse.engine)
    measure(farmhouse, "s1")
    one = queries.cause_digest(farmhouse.engine)
    other = Draft(a_plan(farmhouse.inventory["acorn"], "s1"), value=lambda *_: 1.0)
    assert not farmhouse.ingest(farmhouse.pack(other, name="again")).accepted

    assert nothing != one == queries.cause_digest(farmhouse.engine)
    measure(farmhouse, "s2")
    assert queries.cause_digest(farmhouse.engine) not in (nothing, one)


def test_publication_digest_changes_with_all_that_pages_show(farmhouse: Farmhouse) -> None:
    scope = public_scope(farmhouse.inventory)
    seen = [queries.publication_digest(farmhouse.engine, scope)]

    def changed() -> bool:
        seen.append(queries.publication_digest(farmhouse.engine, scope))
        return seen[-1] != seen[-2]

    transact(farmhouse.engine, lambda transaction: transaction.add(a_check_in(1)))
    assert changed()
    farmhouse.issue(a_plan(farmhouse.inventory["acorn"], "s0"), state="queued")
    assert changed()
    measure(farmhouse, "s1")
    assert changed()
    judge(farmhouse, [], [])
    assert changed()
    assert not changed()
    measure(farmhouse, "s2", visibility="private")
    assert not changed()


def everything_shown(farmhouse: Farmhouse, scope: Scope) -> str:
    """All that any function of the read side tells this reader, as one text."""
    engine = farmhouse.engine
    lists: list[Sequence[object]] = [
        queries.check_ins(engine, scope),
        queries.sessions(engine, scope),
        queries.outcomes(engine, scope),
        queries.bundles(engine, scope),
        queries.probes(engine, scope),
        queries.comparisons(engine, scope),
        queries.findings(engine, scope),
        [found for found in (queries.session(engine, scope, name) for name in ("secret", "kept")) if found],
    ]
    rows = [{key: str(value) for key, value in vars(row).items()} for rows in lists for row in rows]
    return json.dumps(rows) + queries.samples(engine, scope).to_csv()


def test_private_session_never_shows(farmhouse: Farmhouse) -> None:
    measure(farmhouse, "open")
    measure(farmhouse, "secret", visibility="private")
    public = everything_shown(farmhouse, public_scope(farmhouse.inventory))

    assert "open" in public
    assert "secret" not in public
    assert "secret" in everything_shown(farmhouse, EVERYTHING)


def test_cluster_whose_donor_keeps_it_to_himself_never_shows(farmhouse: Farmhouse) -> None:
    measure(farmhouse, "open", "acorn")
    measure(farmhouse, "kept", "birch")
    judge(
        farmhouse,
        [a_comparison("acorn"), a_comparison("birch"), a_comparison("acorn", "birch"), a_comparison("birch", "acorn")],
        [a_finding("a", "acorn"), a_finding("b", "birch")],
    )
    kept = {**farmhouse.inventory, "birch": replace(farmhouse.inventory["birch"], publish=False)}

    public = everything_shown(farmhouse, public_scope(kept))

    assert "open" in public
    assert "birch" not in public
    assert "kept" not in public
    assert [row.cluster for row in queries.comparisons(farmhouse.engine, public_scope(kept))] == ["acorn"]


def test_rejected_bundle_never_shows_in_public(farmhouse: Farmhouse) -> None:
    plan = farmhouse.issue(a_plan(farmhouse.inventory["acorn"]), state="cancelled")
    farmhouse.ingest(farmhouse.pack(Draft(plan)))
    stranger = farmhouse.incoming / "noise"
    stranger.write_bytes(b"noise")
    farmhouse.ingest(stranger)

    assert len(queries.bundles(farmhouse.engine, EVERYTHING)) == 2
    assert queries.bundles(farmhouse.engine, public_scope(farmhouse.inventory)) == []


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(st.sampled_from(["acorn", "birch"]), st.sampled_from([None, "acorn", "birch"]), st.booleans())
    ),
    publishing=st.frozensets(st.sampled_from(["acorn", "birch"])),
)
def test_public_comparisons_are_public_and_of_permitting_clusters_only(
    farmhouse: Farmhouse, rows: list[tuple[str, str | None, bool]], publishing: frozenset[str]
) -> None:
    judge(farmhouse, [a_comparison(one, other, "public" if open_ else "private") for one, other, open_ in rows], [])

    shown = queries.comparisons(farmhouse.engine, Scope(True, publishing))

    expected = [row for row in rows if row[2] and {row[0], row[1]} - {None} <= publishing]
    assert [(row.cluster, row.other_cluster, True) for row in shown] == expected
