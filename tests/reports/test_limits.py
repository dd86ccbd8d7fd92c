"""Pages tell what is possible, how much of it was reached, and void what is beyond."""

import json
from pathlib import Path

from reports.pages.sessions import clocks_told
from tests.reports.conftest import VERSION, SyntheticFarm
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
