"""A bundle is taken in once and whole, whatever is done to it, to its file or to the farm meanwhile."""

import gzip
import json
import multiprocessing
import os
import signal
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from farm.results.database import transact
from farm.results.tables import Bundle, OutcomeRow, ProbeRow, SampleRow, Series, Session
from scenarios.crossing import Facts, Manifest, Plan, Probe, Sample, digest_of
from scenarios.strict import from_data
from tests.helpers.bundles import CANARY, PARENT, SUBJECT, Draft, a_build, a_plan
from tests.helpers.farmhouse import NOON, Farmhouse
from workers.bundle import BundleWriter

GOLDEN = Path(__file__).parents[2] / "data"


def test_accepted_bundle_is_there_with_all_its_rows_and_files(farmhouse: Farmhouse, plan: Plan) -> None:
    result = farmhouse.ingest(farmhouse.pack(Draft(plan)))

    assert (result.accepted, result.reason, result.session, result.attempt) == (True, None, "s1", 1)
    rows = farmhouse.rows()
    assert len(rows["sample"]) == 3 * 2 * 3  # revisions, blocks, metrics
    assert len(rows["outcome"]) == 3 * 2 * 2  # revisions, blocks, scenarios
    assert len(rows["series"]) == 3
    assert {(row["kind"], row["at"], row["to"], row["value"], row["block"]) for row in rows["probe"]} == {
        ("disk write", "h1", None, 900.0, 0),
        ("disk write", "h1", None, 902.0, 2),
        ("network", "observer", "storage", 1500.0, 0),
    }
    assert [(row["state"], row["finished_at"]) for row in rows["session"]] == [("done", NOON)]
    assert [row["accepted"] for row in rows["bundle"]] == [True]
    unpacked = farmhouse.settings.bundles_dir / "s1-1"
    assert sorted(str(path.relative_to(unpacked)) for path in unpacked.rglob("*") if path.is_file()) == [
        *("facts.json", "limits.jsonl", "logs/session.log", "manifest.json", "manifest.json.sig", "samples.jsonl"),
    ]
    assert (unpacked / "logs/session.log").read_bytes() == b"all went well\n"


def test_series_say_what_may_be_compared(farmhouse: Farmhouse, plan: Plan) -> None:
    farmhouse.ingest(farmhouse.pack(Draft(plan)))

    series = {row["metric"]: row for row in farmhouse.rows()["series"]}
    assert series["total_ms"]["placement"] == "other host"
    assert series["answer_ms"]["placement"] == "one host"
    assert {row["canary"] for row in series.values()} == {CANARY}
    assert {row["guest"] for row in series.values()} == {digest_of(CANARY)}
    assert len({row["epoch"] for row in series.values()}) == 1


def series_after(farmhouse: Farmhouse, change: Callable[[Draft], Any]) -> int:
    """How many series answer_ms has after two sessions, of which the second one is changed."""
    for session, spoil in (("s1", lambda draft: None), ("s2", change)):
        plan = a_plan(farmhouse.inventory["acorn"], session)
        draft = Draft(plan)
        spoil(draft)
        farmhouse.take_in(plan, draft)
    return sum(row["metric"] == "answer_ms" for row in farmhouse.rows()["series"])


def test_next_session_goes_on_with_the_same_series(farmhouse: Farmhouse) -> None:
    assert series_after(farmhouse, lambda draft: None) == 1


def test_declared_fact_that_changed_opens_an_epoch(farmhouse: Farmhouse) -> None:
    assert series_after(farmhouse, lambda draft: draft.facts["declared"].update(kernel="6.12")) == 2


def test_load_that_changed_opens_none(farmhouse: Farmhouse) -> None:
    assert series_after(farmhouse, lambda draft: draft.facts["load"].update(before=9.0)) == 1


def test_check_in_that_changes_its_guest_stays_in_the_series(farmhouse: Farmhouse) -> None:
    assert series_after(farmhouse, lambda draft: draft.facts["guest_images"].update({SUBJECT: "0" * 64})) == 1


def test_canary_with_another_guest_image_begins_a_new_series(farmhouse: Farmhouse) -> None:
    assert series_after(farmhouse, lambda draft: draft.facts["guest_images"].update({CANARY: "0" * 64})) == 2


def test_another_parameter_in_the_plan_is_another_question(farmhouse: Farmhouse) -> None:
    plain = a_plan(farmhouse.inventory["acorn"])
    boot, migration = plain.scenarios
    capped = boot, replace(migration, params={"bandwidth_mib_s": 16})
    farmhouse.take_in(plain)
    farmhouse.take_in(replace(plain, session="s2", scenarios=capped))

    series = [row["params"] for row in farmhouse.rows()["series"] if row["metric"] == "total_ms"]
    assert sorted(map(str, series)) == ["{'bandwidth_mib_s': '16'}", "{}"]


def test_private_sessions_never_share_a_series_with_public_ones(farmhouse: Farmhouse) -> None:
    farmhouse.take_in(a_plan(farmhouse.inventory["acorn"], "s1"))
    farmhouse.take_in(a_plan(farmhouse.inventory["acorn"], "s2"), visibility="private")

    assert sorted(row["visibility"] for row in farmhouse.rows()["series"]) == ["private"] * 3 + ["public"] * 3


def test_session_without_a_canary_is_taken_in(farmhouse: Farmhouse) -> None:
    builds = (a_build(SUBJECT, "subject"), a_build(PARENT, "base"))
    farmhouse.take_in(a_plan(farmhouse.inventory["acorn"], builds=builds))

    assert {row["canary"] for row in farmhouse.rows()["series"]} == {""}


def test_session_in_which_nothing_could_be_measured_is_taken_in(farmhouse: Farmhouse, plan: Plan) -> None:
    draft = Draft(plan)
    draft.samples = []
    for outcome in draft.manifest["outcomes"]:
        outcome.update(outcome="failed", fault="stack", reason="no server came up")

    assert farmhouse.ingest(farmhouse.pack(draft)).accepted
    assert {row["fault"] for row in farmhouse.rows()["outcome"]} == {"stack"}


def test_void_sample_is_kept_with_its_reason(farmhouse: Farmhouse, plan: Plan) -> None:
    draft = Draft(plan)
    draft.samples[0].update(valid=False, void_reason="no nonce came back")
    draft.manifest["outcomes"][0].update(outcome="failed", fault="farm", reason="no nonce came back")
    for sample in draft.samples:
        if (sample["revision"], sample["scenario"], sample["block"]) == (SUBJECT, "boot", 0):
            sample.update(valid=False, void_reason="no nonce came back")

    assert farmhouse.ingest(farmhouse.pack(draft)).accepted
    void = [row for row in farmhouse.rows()["sample"] if not row["valid"]]
    assert [row["void_reason"] for row in void] == ["no nonce came back"] * 2


def test_same_file_again_changes_nothing(farmhouse: Farmhouse, plan: Plan) -> None:
    file = farmhouse.pack(Draft(plan))
    first = farmhouse.ingest(file)
    rows = farmhouse.rows()

    assert farmhouse.ingest(file.rename(file.with_name("other-name"))) == first
    assert farmhouse.rows() == rows


def test_bundle_of_the_worker_s_own_making_is_taken_in(farmhouse: Farmhouse, plan: Plan) -> None:
    draft = Draft(plan)
    file = seal_as_worker(farmhouse, draft)

    assert farmhouse.ingest(file).reason is None
    assert len(farmhouse.rows()["sample"]) == len(draft.samples)
    assert len(farmhouse.rows()["probe"]) == len(draft.probes)


def seal_as_worker(farmhouse: Farmhouse, draft: Draft) -> Path:
    writer = BundleWriter(farmhouse.settings.home / "bundle")
    writer.add_samples([from_data(sample, Sample, source="draft") for sample in draft.samples])
    writer.add_probes([from_data(probe, Probe, source="draft") for probe in draft.probes])
    writer.add_facts(from_data(draft.facts, Facts, source="draft"))
    writer.add_log("session.log", "all went well")
    manifest = from_data({**draft.manifest, "files": writer.digests()}, Manifest, source="draft")
    out = farmhouse.incoming / "bundle.tar.gz"
    writer.seal(manifest, farmhouse.key(), out)
    return out


class PowerCutError(Exception):
    """The test's own end of the world."""


def test_interrupted_at_any_statement_it_is_all_there_after_the_next_try(farmhouse: Farmhouse, plan: Plan) -> None:
    file = farmhouse.pack(Draft(plan))
    before = farmhouse.rows()
    left = 0

    def count_down(*_: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise PowerCutError

    listened = [(farmhouse.engine, "before_cursor_execute"), (farmhouse.engine, "commit")]
    interrupted = 0
    for target, name in listened:
        event.listen(target, name, count_down)
    try:
        while True:
            left = interrupted
            try:
                result = farmhouse.ingest(file)
                break
            except PowerCutError:
                interrupted += 1
                left = 1000
                assert farmhouse.rows() == before, f"after {interrupted - 1} statements"
    finally:
        for target, name in listened:
            event.remove(target, name, count_down)

    assert result.accepted
    assert interrupted > 8
    after = farmhouse.rows()
    assert (len(after["sample"]), len(after["outcome"]), len(after["bundle"])) == (18, 12, 1)
    assert sorted(path.name for path in farmhouse.settings.bundles_dir.iterdir()) == [".turn", "s1-1"]


def ingest_and_die(farmhouse: Farmhouse, file: Path, moment: str, left: int) -> None:
    def die(*_: object) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    farmhouse.engine.dispose(close=False)  # a forked process must not use its parent's connections
    event.listen(farmhouse.engine, moment, die)
    farmhouse.ingest(file)


@pytest.mark.parametrize(
    ("moment", "nth"), [("begin", 1), ("begin", 2), ("commit", 1)], ids=["at first", "unpacked", "folder in its place"]
)
def test_killed_ingest_leaves_nothing_that_the_next_one_does_not_put_right(
    farmhouse: Farmhouse, plan: Plan, moment: str, nth: int
) -> None:
    file = farmhouse.pack(Draft(plan))
    before = farmhouse.rows()

    victim = multiprocessing.get_context("fork").Process(target=ingest_and_die, args=(farmhouse, file, moment, nth))
    victim.start()
    victim.join(timeout=60)

    assert victim.exitcode == -signal.SIGKILL
    assert farmhouse.rows() == before
    assert farmhouse.ingest(file).accepted
    assert len(farmhouse.rows()["sample"]) == 18
    assert sorted(path.name for path in farmhouse.settings.bundles_dir.iterdir()) == [".turn", "s1-1"]


def ingest_elsewhere(farmhouse: Farmhouse, file: Path) -> None:
    farmhouse.engine.dispose(close=False)
    os._exit(0 if farmhouse.ingest(file).accepted else 1)


def test_ingested_by_several_processes_at_once_it_counts_once(farmhouse: Farmhouse, plan: Plan) -> None:
    file = farmhouse.pack(Draft(plan))
    context = multiprocessing.get_context("fork")

    processes = [context.Process(target=ingest_elsewhere, args=(farmhouse, file)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=60)

    assert [process.exitcode for process in processes] == [0] * 4
    assert len(farmhouse.rows()["sample"]) == 18
    assert len(farmhouse.rows()["bundle"]) == 1


def forget(farmhouse: Farmhouse) -> None:
    """Put the session back to where it was before any bundle came."""

    def undo(transaction: Any) -> None:
        for table in (SampleRow, OutcomeRow, ProbeRow, Series, Bundle):
            transaction.query(table).delete()
        transaction.query(Session).update({"state": "running", "finished_at": None})

    transact(farmhouse.engine, undo)


@dataclass(frozen=True)
class Honest:
    """A bundle nobody touched, and the rows it makes."""

    tar: bytes
    rows: dict[str, list[dict[str, Any]]]


@pytest.fixture
def honest(farmhouse: Farmhouse, plan: Plan) -> Honest:
    tar = Draft(plan).tar(farmhouse.key())
    return Honest(tar, rows_after(farmhouse, tar))


def rows_after(farmhouse: Farmhouse, tar: bytes) -> dict[str, list[dict[str, Any]]]:
    """What is in the database after this archive came to a session that waits for it."""
    forget(farmhouse)
    file = farmhouse.incoming / "bundle.tar.gz"
    file.write_bytes(gzip.compress(tar, 1))
    result = farmhouse.ingest(file)
    rows = farmhouse.rows()
    assert result.accepted == bool(rows["sample"])
    assert result.accepted or result.reason
    return {**rows, "bundle": [{**row, "sha256": "another file"} for row in rows["bundle"]]}


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_one_changed_byte_never_lets_anything_else_in(
    farmhouse: Farmhouse, honest: Honest, data: st.DataObject
) -> None:
    """Of the archive inside, as a change outside is a matter for gzip's own check."""
    changed = bytearray(honest.tar)
    changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))

    rows = rows_after(farmhouse, bytes(changed))

    assert rows == honest.rows or rows["sample"] == rows["outcome"] == []


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(noise=st.binary(max_size=2000), position=st.floats(0, 1))
def test_noise_in_the_archive_lets_nothing_else_in(
    farmhouse: Farmhouse, honest: Honest, noise: bytes, position: float
) -> None:
    at = int(position * len(honest.tar))

    rows = rows_after(farmhouse, honest.tar[:at] + noise + honest.tar[at:])

    assert rows == honest.rows or rows["sample"] == rows["outcome"] == []


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(noise=st.binary(max_size=200), position=st.floats(0, 1))
def test_noise_in_the_file_makes_a_reason_and_no_exception(
    farmhouse: Farmhouse, honest: Honest, noise: bytes, position: float
) -> None:
    forget(farmhouse)
    packed = gzip.compress(honest.tar, 1)
    at = int(position * len(packed))
    file = farmhouse.incoming / "bundle.tar.gz"
    file.write_bytes(packed[:at] + noise + packed[at:])

    result = farmhouse.ingest(file)

    assert result.accepted or result.reason
    assert len(farmhouse.rows()["sample"]) == (18 if result.accepted else 0)


@pytest.mark.parametrize("golden", sorted(GOLDEN.glob("bundle-*")), ids=lambda path: path.name)
def test_golden_bundle_ingests_for_ever(farmhouse: Farmhouse, golden: Path) -> None:
    """Bundles of every released schema, as workers of their time signed them."""
    issued = json.loads((golden / "issued.json").read_text())
    (farmhouse.settings.home / "keys" / "acorn.pub").write_bytes((golden / "acorn.pub").read_bytes())
    plan = from_data(issued["plan"], Plan, source="golden")
    farmhouse.issue(plan, plan_digest=issued["plan_digest"])

    result = farmhouse.ingest(golden / "bundle.tar.gz")

    assert result.reason is None
    samples = farmhouse.rows()["sample"]
    assert sorted(row["value"] for row in samples if row["valid"]) == issued["valid_values"]
    assert [row["void_reason"] for row in samples if not row["valid"]] == issued["void_reasons"]
    with tarfile.open(golden / "bundle.tar.gz") as tar:
        assert sorted(tar.getnames()) == sorted(
            str(path.relative_to(farmhouse.settings.bundles_dir / f"{plan.session}-{plan.attempt}"))
            for path in (farmhouse.settings.bundles_dir / f"{plan.session}-{plan.attempt}").rglob("*")
            if path.is_file()
        )
