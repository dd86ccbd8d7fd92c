"""Pages tell what is possible, how much of it was reached, and void what is beyond."""

import json
import re
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session as Transaction

from farm.results.database import transact
from farm.results.tables import SampleRow, Series
from reports.pages.sessions import clocks_told
from tests.reports.conftest import VERSION, SyntheticFarm, revision_at
from tests.reports.test_site import words_of


def test_a_cluster_shows_its_limits_and_what_is_reached(judged_site: Path) -> None:
    told = words_of(judged_site / "clusters" / "acorn.html")
    assert "disk write h1 900 MiB/s" in told
    assert "network the upload client to the store 1 200 MiB/s" in told
    assert "flush h1 110 µs" in told
    assert "s of CPU time ÷ 2 processors" in told
    assert "the store's disks 600 MiB/s ÷ 3 replicas" in told
    assert "no limit: it is a ratio of two figures, each with a limit of its own or none" in told
    assert "history-example window 2 of 240, canary 0 of 60" in told


def test_figures_stand_beside_their_share(judged_site: Path) -> None:
    boot = words_of(judged_site / "metrics" / f"boot-answer_ms-v{VERSION['boot']}.html")
    assert "limit known: figures say how much" in boot
    assert "% of limit" in boot
    create = words_of(judged_site / "metrics" / f"boot-vmm_ms-v{VERSION['boot']}.html")
    assert "limit no limit: how much of the boot's work is done by then nobody tells" in create
    assert "% of limit" not in create
    assert "% of limit" in words_of(judged_site / "compare" / "acorn..birch.html")


def test_a_session_shows_its_probes_and_the_share_of_each_sample(judged_site: Path) -> None:
    told = words_of(judged_site / "sessions" / "acorn1.html")
    assert "limit where 0 blocks 1 block 2 blocks" in told
    assert "disk write h1 818.2 MiB/s 750 MiB/s 692.3 MiB/s" in told
    assert "of its limit" in told
    assert "Void: window 2 of 96, canary 0 of 24." in told


def test_a_session_tells_of_its_clocks(farm: SyntheticFarm) -> None:
    assert clocks_told({"h1": 0.00002, "h2": 0.0005}, {"h2": [0.25, -1.5]}) == {
        "clock of h1": "within 0.02 ms of the observer's, kept to it",
        "clock of h2": "within 0.5 ms of the observer's, jumped by 250 ms, -1\u202f500 ms: what the host took part in is void",
    }
    farm.see_check_ins()
    farm.measure("acorn", 1)
    assert "clock of h2 within 0.03 ms of the observer's, kept to it" in words_of(
        farm.publish() / "sessions" / "acorn1.html"
    )


def test_a_cluster_without_probes_says_so(farm: SyntheticFarm) -> None:
    farm.see_check_ins()
    farm.queue("acorn", 0)
    told = words_of(farm.publish() / "clusters" / "acorn.html")
    assert "No limit is known here: no session has probed any." in told


def test_raw_data_have_the_limit_or_nothing(judged_site: Path) -> None:
    records = json.loads((judged_site / "data" / "samples.json").read_text(), parse_constant=lambda name: 1 / 0)
    boots = [row for row in records if row["scenario"] == "boot" and row["metric"] == "answer_ms"]
    assert all(0 < row["share"] < 1 and row["limit"] > 0 for row in boots)
    assert all(row["share"] is None for row in records if row["metric"] == "vmm_ms")


def falsify(farm: SyntheticFarm, session: str, metric: str, factor: float, **params: str) -> None:
    """Let one check-in's samples of one metric in a session be what nobody can do."""

    def change(transaction: Transaction) -> None:
        rows = transaction.execute(
            select(SampleRow, Series)
            .join(Series, SampleRow.series == Series.id)
            .where(SampleRow.session == session, SampleRow.revision == revision_at(3), Series.metric == metric)
        )
        for sample, series in rows:
            if series.params == params:
                sample.value *= factor

    transact(farm.engine, change)


@pytest.mark.parametrize(
    ("metric", "params", "factor", "title", "why"),
    [
        # nothing but the length of a sparse file was sent
        ("goodput_mib_s", {"shape": "segments"}, 40.0, "chunked upload, segments: goodput", "the store's disks 600 MiB/s ÷ 3 replicas"),
        # blocks were shared with the base where all should have been copied
        ("create_ms", {"method": "copy"}, 0.02, "cow start, copy: making the disk", "128 MiB ÷ disk write 900 MiB/s"),
    ],
)  # fmt: skip
def test_what_one_check_in_cannot_have_done_is_void_for_all_and_told(
    farm: SyntheticFarm, metric: str, params: dict[str, str], factor: float, title: str, why: str
) -> None:
    farm.finish_campaign()
    falsify(farm, "acorn1", metric, factor, **params)
    site = farm.publish()
    reason = re.compile(rf"void: a revision of this session is at [0-9]+ % of what is possible here: {re.escape(why)}")
    summary, *rows = words_of(site / "sessions/acorn1.html").split(title)[1:]
    assert summary.startswith(" is void in this session for every check-in: a revision of this session is at ")
    assert len(rows) == 8, "two blocks of four check-ins"
    assert all(reason.search(row) for row in rows)
    slug = f"{title.split(',')[0].replace(' ', '_')}-{metric}-{'-'.join(params.values())}"
    told = words_of(next((site / "metrics").glob(f"{slug}-v*.html")))
    assert "Void in session acorn1, for every check-in there: a revision" in told
    assert "of what is possible here" not in words_of(site / "sessions/acorn2.html")
    assert f"is possible here: {why}" in words_of(site / "clusters/acorn.html")
    records = json.loads((site / "data" / "samples.json").read_text())
    void = [row for row in records if "of what is possible here" in (row["void_reason"] or "")]
    assert {(row["session"], row["metric"], *row["params"].values()) for row in void} == {
        ("acorn1", metric, *params.values())
    }
    assert {row["revision"] for row in void} == {revision_at(number) for number in range(4)}
