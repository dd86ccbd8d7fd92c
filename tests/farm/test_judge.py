"""The whole judgement on a real database: planted changes are named, and nothing else is."""

from pathlib import Path
from typing import Any

import pytest

from farm.findings import breaks
from farm.results.tables import ComparisonRow, OutcomeRow
from tests.helpers.campaigns import PRIVATE, Kind, SyntheticFarm, build_synthetic_farm, revision_at


def slow_boot(kind: Kind) -> float:
    """Boots 1.36 times slower, wherever a guest boots."""
    return 1.36 if kind.metric.name in ("answer_ms", "qemu_cpu_s") else 1.0


def quick_boot(kind: Kind) -> float:
    return 1 / slow_boot(kind)


def slow_first_write(kind: Kind) -> float:
    return 2.9 if kind.metric.name == "first_write_us" else 1.0


def slow_upload(kind: Kind) -> float:
    return 0.3 if kind.metric.name == "goodput_mib_s" else 1.0


def a_farm(tmp_path: Path, **options: Any) -> SyntheticFarm:
    farm = build_synthetic_farm(tmp_path, **options)
    farm.see_check_ins(6)
    return farm


def measure_all(farm: SyntheticFarm, campaign: str, numbers: list[int], **options: Any) -> None:
    for session in farm.ask(campaign, numbers, **options):
        farm.measure(session)


def named(farm: SyntheticFarm) -> list[tuple[str, str, str, str]]:
    numbers = {revision_at(number): str(number) for number in range(1, 7)}
    return sorted((numbers[row.revision], row.cluster, row.direction, row.state) for row in farm.findings())


@pytest.mark.parametrize("seed", range(3))
def test_a_history_names_its_planted_changes_and_nothing_else(tmp_path: Path, seed: int) -> None:
    farm = a_farm(tmp_path, effects={2: slow_boot, 4: slow_first_write, 5: quick_boot}, seed=seed)
    measure_all(farm, "history", [1, 2, 3, 4, 5])
    assert farm.judge()
    assert named(farm) == [
        ("2", "acorn", "slower", "confirmed"),
        ("2", "birch", "slower", "confirmed"),
        ("4", "acorn", "slower", "confirmed"),
        ("4", "birch", "slower", "confirmed"),
        ("5", "acorn", "faster", "confirmed"),
        ("5", "birch", "faster", "confirmed"),
    ]
    first_writes = {row.revision: row.metrics for row in farm.findings()}[revision_at(4)]
    assert {entry["metric"] for entry in first_writes} == {"first_write_us"}
    assert {entry["params"]["method"] for entry in first_writes} == {"overlay", "reflink", "copy"}
    assert all(entry["ratio"] == pytest.approx(2.9, rel=0.3) and entry["n"] == 5 for entry in first_writes)


def test_a_check_in_is_judged_beside_its_parent_and_the_canary(tmp_path: Path) -> None:
    farm = a_farm(tmp_path, effects={4: slow_boot})
    measure_all(farm, "example-4", [3, 4])
    measure_all(farm, "example-5", [4, 5])
    farm.judge()
    assert named(farm) == [("4", "acorn", "slower", "confirmed"), ("4", "birch", "slower", "confirmed")]
    assert {row.last_good for row in farm.findings()} == {revision_at(3)}
    rows = farm.comparisons(between="revisions", revision=revision_at(4), scenario="boot", metric="answer_ms")
    assert {(row.cluster, row.verdict, row.n, row.sessions, row.replication) for row in rows} == {
        ("acorn", "different", 5, 3, "block"),
        ("birch", "different", 5, 3, "block"),
    }
    assert {row.other_revision for row in rows} == {revision_at(3)}


def test_higher_may_be_better(tmp_path: Path) -> None:
    farm = a_farm(tmp_path, effects={2: slow_upload})
    measure_all(farm, "history", [1, 2, 3, 4])
    farm.judge()
    assert named(farm) == [("2", "acorn", "slower", "confirmed"), ("2", "birch", "slower", "confirmed")]


def test_slower_and_faster_at_once_is_both(tmp_path: Path) -> None:
    farm = a_farm(tmp_path, effects={2: lambda kind: slow_first_write(kind) * quick_boot(kind)})
    measure_all(farm, "history", [1, 2, 3, 4], clusters=["acorn"])
    farm.judge()
    assert named(farm) == [("2", "acorn", "both", "confirmed")]


def test_before_all_sessions_are_in_nothing_is_judged(tmp_path: Path) -> None:
    """A large change is on watch after two sessions, and confirmed, under the same key, when the campaign is done."""
    farm = a_farm(tmp_path, effects={2: slow_first_write})
    sessions = farm.ask("history", [1, 2, 3, 4], clusters=["acorn"])
    for session in sessions[:2]:
        farm.measure(session)
    farm.judge()
    assert named(farm) == [("2", "acorn", "slower", "watch")]
    assert {row.verdict for row in farm.comparisons()} == {"not judged"}
    assert {row.n for row in farm.comparisons()} == {3}
    watched = farm.findings()[0]
    farm.measure(sessions[2])
    farm.judge()
    assert named(farm) == [("2", "acorn", "slower", "confirmed")]
    confirmed = farm.findings()[0]
    assert (confirmed.key, confirmed.found_at) == (watched.key, watched.found_at)


def test_the_first_block_gives_ratios_without_intervals(tmp_path: Path) -> None:
    farm = a_farm(tmp_path, effects={2: slow_first_write})
    farm.measure(farm.ask("history", [1, 2, 3])[0])
    farm.judge()
    row = farm.comparisons(revision=revision_at(2), metric="first_write_us")[0]
    assert row.ratio is not None
    assert (row.n, row.low, row.p_value, row.verdict) == (1, None, None, "not judged")
    assert farm.findings() == []


@pytest.mark.parametrize(("ends", "verdicts"), [("queued", {"not judged"}), ("failed", {"not judged", "different"})])
def test_a_campaign_is_judged_when_nothing_is_still_to_come(tmp_path: Path, ends: str, verdicts: set[str]) -> None:
    """Six blocks of seven are enough, but not while somebody could still wait for a better seventh."""
    farm = a_farm(tmp_path, effects={2: slow_first_write})
    *measured, last = farm.ask("history", [1, 2, 3, 4], clusters=["acorn"], blocks=(2, 2, 2, 1))
    for session in measured:
        farm.measure(session)
    farm.end(last, ends)
    farm.judge()
    rows = farm.comparisons(revision=revision_at(2), metric="first_write_us")
    assert {row.verdict for row in rows} <= verdicts
    assert ("different" in {row.verdict for row in rows}) is (ends == "failed")


def test_five_blocks_of_one_session_are_not_judged(tmp_path: Path) -> None:
    farm = a_farm(tmp_path, effects={2: slow_first_write})
    measure_all(farm, "history", [1, 2, 3, 4], clusters=["acorn"], blocks=(5,))
    farm.judge()
    assert {row.verdict for row in farm.comparisons()} == {"not judged"}
    assert named(farm) == []


def test_a_metric_that_is_not_judged_is_shown_and_accuses_nobody(tmp_path: Path) -> None:
    farm = a_farm(tmp_path, effects={2: lambda kind: 3.0 if kind.metric.name == "vmm_ms" else 1.0})
    measure_all(farm, "history", [1, 2, 3, 4], clusters=["acorn"])
    farm.judge()
    row = farm.comparisons(revision=revision_at(2), metric="vmm_ms")[0]
    assert row.ratio == pytest.approx(3.0, rel=0.2)
    assert row.verdict == "not judged"
    assert farm.findings() == []


def test_a_build_that_is_no_check_in_is_compared_and_accuses_nobody(tmp_path: Path) -> None:
    """Such as the canary's twin in an A/A campaign, even if the two differ."""
    farm = a_farm(tmp_path, effects={9: slow_first_write})
    for session in farm.ask("aa", [1, 9], clusters=["acorn"]):
        farm.measure(session)
    farm.judge()
    rows = farm.comparisons(revision=revision_at(9), metric="first_write_us")
    assert {(row.other_revision, row.verdict) for row in rows} == {(revision_at(1), "different")}
    assert farm.findings() == []


def test_measuring_again_does_not_change_a_verdict(tmp_path: Path) -> None:
    farm = a_farm(tmp_path)
    measure_all(farm, "example-2", [1, 2], clusters=["acorn"])
    farm.judge()
    before = _figures(farm.comparisons(between="revisions"))
    measure_all(farm, "again", [1, 2], clusters=["acorn"])
    assert farm.judge()
    assert _figures(farm.comparisons(between="revisions")) == before


def _figures(rows: list[ComparisonRow]) -> list[tuple[object, ...]]:
    return [(row.scenario, row.metric, str(row.params), row.ratio, row.low, row.high, row.verdict) for row in rows]


def test_nothing_new_makes_no_new_analysis(tmp_path: Path) -> None:
    farm = a_farm(tmp_path)
    farm.measure(farm.ask("history", [1, 2, 3])[0])
    assert farm.judge()
    assert not farm.judge()


def test_an_empty_farm_is_judged_too(tmp_path: Path) -> None:
    farm = build_synthetic_farm(tmp_path)
    assert farm.judge()
    assert farm.comparisons() == []
    assert farm.findings() == []


def test_clusters_are_compared_over_sessions(tmp_path: Path) -> None:
    farm = a_farm(tmp_path)
    for session in farm.ask("history", [1, 2, 3]):
        farm.host_factor = 3.0 if session.cluster == "birch" else 1.0
        farm.measure(session)
    farm.judge()
    rows = farm.comparisons(between="clusters", revision=revision_at(3))
    assert {(row.cluster, row.other_cluster, row.n, row.replication) for row in rows} == {
        ("acorn", "birch", 3, "session")
    }
    slower = [row.ratio for row in rows if row.ratio is not None]
    assert sum(slower) / len(slower) == pytest.approx(1 / 3, rel=0.3)
    assert {row.verdict for row in rows if row.metric != "vmm_ms"} <= {"different", "inconclusive"}


def test_a_ratio_between_clusters_stands_with_the_values_it_is_made_of(tmp_path: Path) -> None:
    """A session that the other cluster has no match for, of a host in another mood, is in neither value."""
    farm = a_farm(tmp_path)
    for session in farm.ask("history", [1, 2, 3]):
        farm.measure(session)
    farm.judge()
    before = {one.id: (one.level, one.other_level) for one in farm.comparisons(between="clusters")}
    assert None not in {level for levels in before.values() for level in levels}
    farm.host_factor = 9.0
    measure_all(farm, "alone", [1, 2, 3], clusters=["acorn"])
    farm.judge()
    rows = farm.comparisons(between="clusters")
    assert [(row.level, row.other_level) for row in rows] == list(before.values())
    made_of = [(row.level or 0.0) / (row.other_level or 1.0) for row in rows]
    assert made_of == pytest.approx([row.ratio for row in rows])
    assert {(row.level, row.other_level) for row in farm.comparisons(between="revisions")} == {(None, None)}


def test_clusters_of_two_sessions_are_not_judged(tmp_path: Path) -> None:
    farm = a_farm(tmp_path)
    for session in farm.ask("history", [1, 2, 3])[:4]:
        farm.measure(session)
    farm.judge()
    rows = farm.comparisons(between="clusters")
    assert {(row.n, row.verdict) for row in rows} == {(2, "not judged")}


@pytest.mark.parametrize("fault", ["stack", "hypervisor", "donor", "farm"])
def test_only_what_the_stack_breaks_is_held_against_a_check_in(tmp_path: Path, fault: str) -> None:
    farm = a_farm(tmp_path)
    for session in farm.ask("example-3", [2, 3], clusters=["acorn"]):
        farm.measure(session, broken=[3], fault=fault)
    farm.judge()
    found = farm.findings()
    if fault != "stack":  # but that it always meets the same one is the farm's to explain
        assert [(one.kind, one.revision, one.direction) for one in found] == [("harness", revision_at(3), "void")]
        entry = found[0].metrics[0]
        assert (entry["lost"], entry["n"], entry["others_lost"], entry["others"]) == (5, 5, 0, 10)
        return
    assert named(farm) == [("3", "acorn", "broken", "confirmed")]
    assert [(entry["scenario"], entry["n"], entry["ratio"]) for entry in found[0].metrics] == [("boot", 3, None)]
    assert found[0].metrics[0]["reason"] == "no answer from the guest within 60 s"


Cell = tuple[str, dict[str, str], str]  # revision, parameters, outcome


@pytest.mark.parametrize(
    ("cells", "broken"),
    [
        ([("old", {"shape": "single"}, "measured"), ("new", {"shape": "single"}, "failed")], [{"shape": "single"}]),
        ([("old", {"shape": "single"}, "measured"), ("new", {}, "failed")], [{}]),
        # asked with a parameter, the scenario could not even begin
        ([("old", {"shape": "single", "size": "16"}, "measured"), ("new", {"size": "16"}, "failed")], [{"size": "16"}]),
        ([("old", {"shape": "single", "size": "16"}, "measured"), ("new", {"size": "32"}, "failed")], []),
        ([("old", {"shape": "single"}, "failed"), ("new", {"shape": "single"}, "failed")], []),
        ([("old", {}, "failed"), ("new", {}, "failed")], []),
        ([("old", {"shape": "single"}, "measured"), ("old", {}, "failed"), ("new", {}, "failed")], []),
    ],
)
def test_broken_is_what_held_at_the_parent(cells: list[Cell], broken: list[dict[str, str]]) -> None:
    rows = [
        OutcomeRow(
            session=session, revision=revision, scenario="chunked_upload", version=1, params=params, outcome=outcome,
            fault="stack" if outcome == "failed" else None, reason="it ended",
        )
        for session in ("first", "second")
        for revision, params, outcome in cells
    ]  # fmt: skip
    assert [(state, entry["params"]) for state, entry in breaks(rows, "new", "old")] == [
        ("confirmed", params) for params in broken
    ]


def test_losses_that_meet_all_revisions_alike_are_no_finding(tmp_path: Path) -> None:
    farm = a_farm(tmp_path)
    sessions = farm.ask("example-3", [2, 3], clusters=["acorn"])
    for session, broken in zip(sessions, ([2], [3], [1, 2, 3]), strict=True):
        farm.measure(session, broken=broken, fault="farm")
    farm.judge()
    assert farm.findings() == []


def test_a_revision_that_is_spared_is_told(tmp_path: Path) -> None:
    """The canary alone never loses anything: what is left of the others was chosen by something."""
    farm = a_farm(tmp_path)
    for session in farm.ask("example-3", [2, 3], clusters=["acorn"]):
        farm.measure(session, broken=[2, 3], fault="farm")
    farm.judge()
    assert [(one.kind, one.revision, one.metrics[0]["lost"]) for one in farm.findings()] == [
        ("harness", revision_at(1), 0)
    ]


def test_losses_are_judged_when_the_campaign_is_complete(tmp_path: Path) -> None:
    farm = a_farm(tmp_path)
    *early, last = farm.ask("example-3", [2, 3], clusters=["acorn"], blocks=(3, 3, 1))
    for session in early:
        farm.measure(session, broken=[3], fault="farm")
    farm.judge()
    assert farm.findings() == []
    farm.measure(last, broken=[3], fault="farm")
    farm.judge()
    assert [one.kind for one in farm.findings()] == ["harness"]


def test_a_break_in_one_session_is_on_watch(tmp_path: Path) -> None:
    farm = a_farm(tmp_path)
    first, second = farm.ask("example-3", [2, 3], clusters=["acorn"], blocks=(2, 1))
    farm.measure(first, broken=[3])
    farm.judge()
    assert named(farm) == [("3", "acorn", "broken", "watch")]
    assert {finding.visibility for finding in farm.findings()} == {"private"}
    farm.measure(second)
    farm.judge()
    assert named(farm) == []


def test_what_failed_before_is_not_held_against_a_check_in(tmp_path: Path) -> None:
    farm = a_farm(tmp_path)
    for session in farm.ask("example-3", [2, 3], clusters=["acorn"]):
        farm.measure(session, broken=[2, 3])
    farm.judge()
    assert farm.findings() == []


def test_a_step_of_the_canary_is_the_hosts_and_nobody_elses(tmp_path: Path) -> None:
    farm = a_farm(tmp_path, effects={})
    starts = []
    for number in range(2, 7):
        for session in farm.ask(f"example-{number}", [number - 1, number], clusters=["acorn"]):
            if number == 5 and session.ordinal == 0:
                farm.host_factor, farm.declared_facts = 4.0, {"kernel": "6.1.0", "microcode": "0x2b"}
                starts.append(session.id)
            farm.measure(session)
    farm.judge()
    found = farm.findings()
    assert {(row.kind, row.cluster, row.direction, row.revision) for row in found} == {
        ("environment", "acorn", "both", revision_at(1))
    }
    entries = [entry for row in found for entry in row.metrics]
    assert starts[0] in {entry["since"] for entry in entries}
    assert {str(entry["changed"]) for entry in entries if entry["since"] == starts[0]} == {
        "{'microcode': [None, '0x2b']}"
    }


def test_a_new_lock_without_a_new_commit_is_the_environments_and_nobody_elses(tmp_path: Path) -> None:
    farm = a_farm(tmp_path, effects={})
    since = []
    for number in range(2, 5):
        for session in farm.ask(f"example-{number}", [number - 1, number], clusters=["acorn"]):
            if number == 4 and session.ordinal == 1:  # in the midst of a campaign, and it makes everything slower
                farm.lock, farm.host_factor = farm.lock.replace("3.9", "3.10"), 2.0
                since.append(session.id)
            farm.measure(session)
    farm.judge()
    rebuilt = [row for row in farm.findings() if row.direction == "rebuilt"]
    assert {row.kind for row in farm.findings()} == {"environment"}
    assert [(row.cluster, row.metrics[0]["since"], row.metrics[0]["reason"]) for row in rebuilt] == [
        ("acorn", since[0], "idna 3.9 (1111111) → 3.10 (1111111)")
    ]
    assert rebuilt[0].metrics[0]["n"] == 3  # the check-in, its parent and the canary


def test_what_is_private_never_mixes_with_what_is_public(tmp_path: Path) -> None:
    farm = a_farm(tmp_path, effects={4: slow_first_write})
    measure_all(farm, "private", [3, 4], owner=PRIVATE)
    measure_all(farm, "example-3", [2, 3])
    farm.judge()
    assert {row.visibility for row in farm.findings()} == {"private"}
    private = {row.revision for row in farm.comparisons(visibility="private")}
    public = {row.revision for row in farm.comparisons(visibility="public")}
    assert revision_at(4) in private
    assert revision_at(4) not in public
    assert {row.n for row in farm.comparisons(between="clusters")} == {3}


def test_what_came_with_or_after_a_broken_check_in_is_held_against_the_last_one_that_was_measured(
    tmp_path: Path,
) -> None:
    farm = a_farm(tmp_path, effects={4: lambda kind: slow_boot(kind) ** 4})
    for session in farm.ask("history", [1, 2, 3, 4], clusters=["acorn"]):
        farm.measure(session, broken=[3])
    farm.judge()
    slower = next(row for row in farm.findings() if row.direction == "slower")
    assert slower.revision == revision_at(4)
    assert "boot" in {entry["scenario"] for entry in slower.metrics}
    compared = farm.comparisons(revision=revision_at(4), scenario="boot")
    assert {row.other_revision for row in compared} == {revision_at(2)}


def answers_late(kind: Kind) -> float:
    return 1.5 if (kind.scenario, kind.metric.name) == ("boot", "answer_ms") else 1.0


def answers_at_once(kind: Kind) -> float:
    """Guests that are said to have answered before they can have booted."""
    return 0.2 if (kind.scenario, kind.metric.name) == ("boot", "answer_ms") else 1.0


@pytest.mark.parametrize(("cores", "found"), [("64", [("2", "acorn", "slower", "confirmed")]), ("1", [])])
def test_what_no_host_can_do_accuses_nobody(tmp_path: Path, cores: str, found: list[Any]) -> None:
    farm = a_farm(tmp_path, effects={1: answers_at_once, 2: answers_late})
    farm.cores = cores
    measure_all(farm, "history", [1, 2, 3], clusters=["acorn"])
    farm.judge()
    assert named(farm) == found
    rows = farm.comparisons(scenario="boot", metric="answer_ms", revision=revision_at(2))
    assert ("different" in {row.verdict for row in rows}) is bool(found)


@pytest.mark.parametrize(("cores", "found"), [("64", [("3", "acorn", "faster", "confirmed")]), ("1", [])])
def test_a_check_in_that_pretends_is_praised_by_nobody(tmp_path: Path, cores: str, found: list[Any]) -> None:
    """It alone answers before its CPU time can have been spent: its metric is void for its parent, too."""
    farm = a_farm(tmp_path, effects={3: answers_at_once})
    farm.cores = cores
    measure_all(farm, "history", [1, 2, 3], clusters=["acorn"])
    farm.judge()
    assert named(farm) == found
    verdicts = {row.verdict for row in farm.comparisons(scenario="boot", metric="answer_ms")}
    assert ("different" in verdicts) is bool(found)
