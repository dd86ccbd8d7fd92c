"""The page of noise tells what the samples scatter, from what, and which metrics cannot show their δ."""

import re
from pathlib import Path

from tests.reports.conftest import VERSION, SyntheticFarm
from tests.reports.test_site import Reader, words_of

BOOT = "boot: CPU time of QEMU to the first answer s"
UPLOAD = "chunked upload, segments: goodput MiB/s"


def rows_of(site: Path, metric: str) -> list[str]:
    """What stands behind the metric's name, once per cluster: floor, effect, δ, fit, n, from."""
    return re.findall(re.escape(metric) + r" (.*? (?:A/A|ordinary) sessions)", words_of(site / "noise.html"))


def test_ordinary_sessions_estimate_the_noise(judged_site: Path) -> None:
    """Five blocks of four check-ins leave (5 − 1)(4 − 1) degrees of freedom; planted changes are no noise."""
    told = rows_of(judged_site, BOOT)
    assert len(told) == 2
    for row in told:
        found = re.fullmatch(r"([0-9.]+) % ([0-9.]+)× 10 % (.*) 12 estimated from ordinary sessions", row)
        assert found is not None, row
        assert 1.5 < float(found[1]) < 5  # drawn with 3 %
        assert found[3] == ("fit" if float(found[2]) <= 1.1 else "not fit to judge")
    assert all("not fit to judge" in row for row in rows_of(judged_site, UPLOAD))


def test_metrics_of_versions_that_are_gone_have_no_noise(judged_site: Path) -> None:
    assert "live migration" not in words_of(judged_site / "noise.html")


def test_a_metric_that_is_not_fit_says_so_beside_its_verdicts(judged_site: Path) -> None:
    page = judged_site / "metrics" / f"chunked_upload-goodput_mib_s-segments-v{VERSION['chunked_upload']}.html"
    assert "inconclusive not fit to judge" in words_of(page)
    assert "../noise.html" in Reader(page.read_text()).links
    unjudged = judged_site / "metrics" / f"boot-vmm_ms-v{VERSION['boot']}.html"
    assert "not fit to judge" not in words_of(unjudged)


def test_a_cluster_leads_to_its_noise(judged_site: Path) -> None:
    assert "../noise.html#birch" in Reader((judged_site / "clusters" / "birch.html").read_text()).links


def test_enough_aa_sessions_are_used_alone_and_their_twin_is_no_check_in(farm: SyntheticFarm) -> None:
    farm.finish_campaign()
    before = farm.publish()
    levels = words_of(before / "metrics" / f"boot-vmm_ms-v{VERSION['boot']}.html")
    measured = re.search(r"check-ins measured ?(\d+)", words_of(before / "index.html"))
    twin = farm.measure_aa("birch", "one")
    farm.measure_aa("birch", "two")
    site = farm.publish()
    assert [row.split("%")[-1].strip() for row in rows_of(site, UPLOAD)] == [
        "not fit to judge 12 estimated from ordinary sessions",
        "not fit to judge 8 A/A sessions",
    ]
    assert f"{twin[:12]}.html" not in (site / "revisions" / "index.html").read_text()
    assert f"{twin[:12]}.html" not in (site / "metrics" / f"boot-vmm_ms-v{VERSION['boot']}.html").read_text()
    told = words_of(site / "revisions" / f"{twin[:12]}.html")
    assert "(again)" in told
    assert "deployed once more beside itself" in told
    assert "this check-in" not in told
    assert "(again)" not in levels
    again = re.search(r"check-ins measured ?(\d+)", words_of(site / "index.html"))
    assert measured is not None
    assert again is not None
    assert again[1] == measured[1]


def test_what_was_measured_before_the_facts_changed_is_no_noise_of_today(farm: SyntheticFarm) -> None:
    farm.finish_campaign()
    farm.measure_aa("birch", "new-kernel", blocks=3, epoch="f" * 64)
    told = dict(zip(("acorn", "birch"), rows_of(farm.publish(), UPLOAD), strict=True))
    assert told["acorn"].endswith("12 estimated from ordinary sessions")
    assert told["birch"].endswith("too little measured to say 2 estimated from ordinary sessions")


def test_before_anything_is_measured_nothing_is_told(farm: SyntheticFarm) -> None:
    assert "Nothing has been measured here yet" in words_of(farm.publish() / "noise.html")
