"""The site says what the results say, to the byte, and nothing that is not public."""

import csv
import dataclasses
import datetime
import io
import json
import re
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from farm.results import tables
from reports.pages.sessions import load_told
from tests.reports.conftest import PUBLIC, VERSION, commit_at, revision_at

SECRET = "kept-from-everybody"


class Reader(HTMLParser):
    """What a test asks of a page: addresses, ids, elements, figures and visible text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.figures: list[dict[str, str | None]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        told = dict(attributes)
        self.tags.append(tag)
        if tag in ("td", "th", "dt", "dd", "li", "p", "caption"):
            self.words += " "
        self.links += [value for name, value in attributes if name in ("href", "src") and value is not None]
        self.ids += [value for name, value in attributes if name == "id" and value is not None]
        if "figure" in (told.get("class") or "").split() and tag == "data":
            self.figures.append(told)

    def handle_data(self, data: str) -> None:
        self.words += data


def pages(site: Path) -> Iterator[tuple[Path, Reader]]:
    for path in sorted(site.rglob("*.html")):
        yield path, Reader(path.read_text(encoding="utf-8"))


def words_of(path: Path) -> str:
    return re.sub(r"\s+", " ", Reader(path.read_text(encoding="utf-8")).words)


def page_of(site: Path, heading: str) -> Path:
    return next(path for path in sorted(site.glob("revisions/*.html")) if f"<h1><bdi>{heading}" in path.read_text())


def bytes_of(site: Path) -> dict[str, bytes]:
    return {str(path.relative_to(site)): path.read_bytes() for path in sorted(site.rglob("*")) if path.is_file()}


def test_every_link_leads_somewhere_inside_the_site(judged_site: Path) -> None:
    ids = {path.resolve(): set(reader.ids) for path, reader in pages(judged_site)}
    checked = 0
    for path, reader in pages(judged_site):
        for link in reader.links:
            if link.startswith(("https://acorn.example", "https://birch.example", "data:,")):
                continue
            address, _, fragment = link.partition("#")
            target = (path.parent / address).resolve() if address else path.resolve()
            assert not link.startswith(("/", "http", "file")), f"{path}: {link} is not relative"
            assert target.is_file(), f"{path}: {link} leads nowhere"
            assert not fragment or fragment in ids[target], f"{path}: {link} has no such place"
            checked += 1
    assert checked > 500


def test_every_kind_of_page_is_there(judged_site: Path) -> None:
    there = {str(path.relative_to(judged_site)) for path in judged_site.rglob("*") if path.is_file()}
    assert there >= {
        *(
            "index.html",
            "method.html",
            "noise.html",
            "clusters/acorn.html",
            "clusters/birch.html",
            "compare/acorn..birch.html",
        ),
        *("sessions/acorn0.html", "sessions/birch2.html", f"metrics/boot-answer_ms-v{VERSION['boot']}.html"),
        *(
            f"metrics/cow_start-first_write_us-overlay-v{VERSION['cow_start']}.html",
            "data/samples.csv",
            "data/samples.json",
        ),
        *(
            "data/comparisons.json",
            "data/findings.json",
            "data/findings.atom",
            f"data/metrics/boot-answer_ms-v{VERSION['boot']}.csv",
        ),
    }
    assert len([name for name in there if name.startswith("revisions/")]) == 5


def test_ids_are_unique_and_pages_have_landmarks(judged_site: Path) -> None:
    for path, reader in pages(judged_site):
        assert len(reader.ids) == len(set(reader.ids)), path
        assert all(reader.tags.count(tag) == 1 for tag in ("main", "header", "footer", "nav", "h1")), path
        assert reader.tags.count("table") == reader.tags.count("caption"), path


def test_every_figure_carries_unit_n_fidelity_and_revision(judged_site: Path) -> None:
    seen = 0
    for path, reader in pages(judged_site):
        for figure in reader.figures:
            assert float(str(figure["value"])) > 0, path
            assert figure["data-unit"] in ("ms", "s", "us", "MiB/s", "ratio"), path
            assert int(str(figure["data-n"])) >= 1, path
            assert figure["data-fidelity"] == "emulated", path
            assert re.fullmatch(r"[0-9a-f]{7}", str(figure["data-revision"])), path
            seen += 1
    assert seen > 200


def test_the_front_page_names_the_culprit_in_a_sentence(judged_site: Path) -> None:
    words = words_of(judged_site / "index.html")
    assert re.search(
        r"▲ check-in [0-9a-f]{7} «Pack all drivers into the guests' initramfs» made boot 1\.60 times slower "
        r"on Birch Cloud \[1\.55–1\.66\], 5 blocks",
        words,
    )
    assert "Runs on an Acorn Hosting cluster" in words
    assert "made-up examples" in words


def test_a_break_is_told_with_its_reason(farm: Any) -> None:
    farm.see_check_ins()
    broken = {
        "scenario": "chunked_upload",
        "version": VERSION["chunked_upload"],
        "metric": "outcome",
        "unit": "",
        "params": {"shape": "single"},
    }
    nothing = {"ratio": None, "low": None, "high": None, "replication": "session", "direction": "broken"}
    entry = {**broken, **nothing, "n": 2, "reason": "proxy answered 503 <b>"}
    farm.find("birch", direction="broken", metrics=[entry])
    words = words_of(farm.publish() / "index.html")
    assert (
        "«Pack all drivers into the guests' initramfs» broke chunked upload, single on Birch Cloud in 2 sessions"
        in words
    )
    assert "proxy answered 503 <b>" in words


def test_a_change_of_the_surroundings_blames_no_check_in(farm: Any) -> None:
    farm.see_check_ins()
    farm.measure("acorn", 1)
    entry = {
        "scenario": "boot",
        "version": VERSION["boot"],
        "metric": "answer_ms",
        "unit": "ms",
        "params": {},
        "ratio": 1.3,
    }
    evidence = {"low": 1.2, "high": 1.4, "n": 6, "replication": "session", "direction": "slower"}
    told = {**entry, **evidence, "since": "acorn1", "changed": {"kernel": ["6.1.0", "6.12.0"]}}
    farm.find("acorn", kind="environment", metrics=[told], last_good=None)
    site = farm.publish()
    assert (
        "since session acorn1 the surroundings changed on Acorn Hosting: the canary's boot 1.30 times slower "
        "[1.20–1.40], 6 sessions"
    ) in words_of(site / "index.html")
    assert "kernel 6.1.0 → 6.12.0" in words_of(site / "clusters/acorn.html")
    assert "Findings None" in words_of(page_of(site, "Pack all drivers"))


def test_a_new_lock_without_a_check_in_blames_no_check_in(farm: Any) -> None:
    farm.see_check_ins()
    farm.measure("acorn", 1)
    told = {"n": 2, "ratio": None, "since": "acorn1", "reason": "idna 3.9 → 3.10 <b>"}
    farm.find("acorn", kind="environment", direction="rebuilt", metrics=[told], last_good=None)
    site = farm.publish()
    assert (
        f"since session acorn1 the surroundings changed on Acorn Hosting: {commit_at(1)[:7]} and 1 other revision "
        "became other bits than before, without a new check-in"
    ) in words_of(site / "index.html")
    assert "idna 3.9 → 3.10 <b>" in words_of(site / "clusters/acorn.html")
    assert "Findings None" in words_of(page_of(site, "Pack all drivers"))


def test_unequal_losses_are_the_farms_and_blame_no_check_in(farm: Any) -> None:
    farm.see_check_ins()
    farm.measure("acorn", 1)
    lost = {"lost": 5, "n": 5, "others_lost": 0, "others": 10, "ratio": None, "reason": "no <proof>"}
    farm.find("acorn", kind="harness", direction="void", metrics=[lost], last_good=None)
    site = farm.publish()
    told = f"the farm's own losses on Acorn Hosting do not meet all check-ins alike: check-in {commit_at(1)[:7]} loses 5 of 5 deployments where the others lose 0 of 10"
    assert told in words_of(site / "index.html")
    assert told in words_of(site / "clusters/acorn.html")
    assert "no <proof>" in words_of(site / "clusters/acorn.html")
    assert "Findings None" in words_of(page_of(site, "Pack all drivers"))
    assert told in (site / "data" / "findings.atom").read_text().replace("&#39;", "'")


def test_others_text_stays_text(judged_site: Path) -> None:
    for path, reader in pages(judged_site):
        assert "script" not in reader.tags, path
        assert not any(link.startswith("javascript") for link in reader.links), path
        assert "\u202e" not in path.read_text(encoding="utf-8"), path
    page = page_of(judged_site, "&lt;script&gt;")
    assert "<script>alert('x')</script> & <img src=x onerror=alert(1)> ${7*7} {{ 7*7 }}" in words_of(page)
    assert b"<script" not in b"".join(
        content for name, content in bytes_of(judged_site).items() if name.endswith(("html", "svg", "atom"))
    )


def test_charts_take_their_colours_from_the_page_and_tell_what_they_show(judged_site: Path) -> None:
    charts = [
        chart
        for path in judged_site.rglob("*.html")
        for chart in re.findall(r"<svg.*?</svg>", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    ]
    assert len(charts) >= 20
    for chart in charts:
        assert len(chart) < 60_000
        assert re.search(r"<title id=.*?>.+</title><desc id=.*?>.+</desc>", chart)
        assert "var(--" in chart
        assert not re.search(r"(fill|stroke): #", chart)


def test_a_void_sample_is_shown_and_in_no_figure(judged_site: Path) -> None:
    rows = list(csv.DictReader(io.StringIO((judged_site / "data/samples.csv").read_text())))
    void = [row for row in rows if row["valid"] == "False"]
    assert {row["void_reason"] for row in void} == {"'=the guest ran on two hosts <b>"}, "no formula in a spreadsheet"
    assert {row["scenario"] for row in void} == {"live_migration"}
    words = words_of(judged_site / "metrics/live_migration-total_ms-v1.html")
    assert "n 4 blocks, 1 void" in words
    assert "void: =the guest ran on two hosts <b>" in words_of(judged_site / "sessions/acorn1.html")


def test_json_and_csv_hold_the_same_samples(judged_site: Path) -> None:
    rows = list(csv.DictReader(io.StringIO((judged_site / "data/samples.csv").read_text())))
    told = json.loads((judged_site / "data/samples.json").read_text())
    assert len(rows) == len(told) == 2 * 5 * 4 * 12
    assert [float(row["value"]) for row in rows] == [row["value"] for row in told]
    assert {row["fidelity"] for row in told} == {"emulated"}


def test_the_feed_is_valid_and_names_every_finding(judged_site: Path) -> None:
    feed = ElementTree.fromstring((judged_site / "data/findings.atom").read_text())
    atom = {"a": "http://www.w3.org/2005/Atom"}
    titles = [entry.findtext("a:title", namespaces=atom) or "" for entry in feed.findall("a:entry", atom)]
    assert len(titles) == 2
    assert all("made boot 1.60 times slower on" in title for title in titles)
    assert all(feed.findtext(f"a:{name}", namespaces=atom) for name in ("id", "title", "updated"))


def test_a_hypervisors_failure_is_told_with_its_fault(judged_site: Path) -> None:
    words = words_of(judged_site / "clusters/acorn.html")
    told = "20 tried, failed: 1 by fault of the hypervisor: the guest's memory did not verify after the migration"
    assert f"{told} (session acorn2) noise" in words, "three sessions are no provisional count"
    assert "none failed" in words_of(judged_site / "clusters/birch.html")


def test_a_failed_migration_of_few_sessions_is_provisional(farm: Any) -> None:
    farm.see_check_ins()
    farm.measure("acorn", 2)
    words = words_of(farm.publish() / "clusters/acorn.html")
    assert "did not verify after the migration (session acorn2) provisional" in words


def test_two_clusters_are_compared_in_words_that_never_say_equal(judged_site: Path) -> None:
    words = words_of(judged_site / "compare/acorn..birch.html")
    assert "different: Acorn Hosting 1.15 times faster" in words
    assert "inconclusive" in words
    assert "not judged provisional" in words
    assert "3 sessions" in words
    assert re.search(
        r"is not shown to be faster than one PUT here \(speed-up [0-9.]+× \[[0-9.]+–[0-9.]+\], "
        r"5 blocks in 3 sessions, emulated, revision [0-9a-f]{7}\)",
        words,
    )
    assert re.search(r"qemu 7\.2\.17 10\.0\.2 differs", words)


def test_a_comparisons_columns_are_what_its_ratio_is_made_of(judged_site: Path) -> None:
    """Sessions that only one of the two clusters has are in the figures of check-ins, and not here."""
    reader = Reader((judged_site / "compare/acorn..birch.html").read_text())
    ratios, ours, theirs = (reader.figures[first::3] for first in range(3))
    assert len(ours) == len(ratios) > 0
    for our, their, ratio in zip(ours, theirs, ratios, strict=True):
        assert float(str(our["value"])) / float(str(their["value"])) == pytest.approx(float(str(ratio["value"])))
        assert our["data-n"] == their["data-n"] == ratio["data-n"] == "3"


def test_unequal_fidelity_is_not_ranked(farm: Any) -> None:
    farm.finish_campaign()
    with farm.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE bundle SET fidelity = 'hardware' WHERE session LIKE 'birch%'")
    words = words_of(farm.publish() / "compare/acorn..birch.html")
    assert "are not ranked" in words
    assert "not ranked: the fidelity differs" in words
    assert "times faster" not in words


def test_a_session_tells_what_it_ran_on_and_what_changed(judged_site: Path) -> None:
    first, later = (words_of(judged_site / f"sessions/acorn{ordinal}.html") for ordinal in (0, 1))
    assert "Was that a real machine? No: these figures are emulated" in later
    assert "This is the first session on this cluster." in first
    assert "load before (1, 5, 15 minutes) 0.20 0.25 1.00" in later
    assert "time spent build 0.7 s, measure 118.9 s" in later
    assert f"The 2 Debian packages of the guest {'d' * 16} systemd 252.1 zstd <1.5>" in later
    assert f"the operator’s guest image SHA-256 {'0f' * 32}; the disk in it has {'1e' * 32}" in later
    assert "Nothing about the hosts, but for load, steal, temperature and what traps cost." in later


@pytest.mark.parametrize(
    "load", [{}, {"before": 0.2}, {"before": ["x"], "after": None, "spent_s": [1]}, {"cpu_s": {"a": "b"}}]
)
def test_load_that_a_worker_made_up_is_left_out(load: dict[str, object]) -> None:
    assert load_told(load) == {}


def test_a_session_tells_its_order_facts_and_bundle(judged_site: Path) -> None:
    words = words_of(judged_site / "sessions/acorn1.html")
    assert re.search(r"block 1: ([0-9a-f]{7}, ){3}[0-9a-f]{7}", words)
    assert "Synthetic <b>CPU</b>" in words
    assert "seed of the order 42" in words
    assert "machine 203.1 s, observer 1.3 s, session 4.2 s" in words
    bundle = judged_site / "data/bundles/acorn1"
    assert (bundle / "manifest.json.sig").is_file()
    assert (bundle / "logs/farm.html.txt").is_file(), "a log must not be taken for a page"
    assert not (bundle / "logs/farm.html").exists()


def test_the_machines_own_paths_are_not_told(judged_site: Path) -> None:
    assert SECRET.encode() not in b"".join(bytes_of(judged_site).values())


def test_private_rows_and_clusters_appear_nowhere(farm: Any) -> None:
    farm.finish_campaign()
    statements = (
        f"UPDATE check_in SET subject_line = '{SECRET}', visibility = 'private' WHERE number = 3",
        f"UPDATE sample SET void_reason = '{SECRET}', valid = 0, visibility = 'private' WHERE session = 'acorn1'",
        f"UPDATE outcome SET reason = '{SECRET}', visibility = 'private' WHERE session = 'acorn2'",
        f"UPDATE finding SET metrics = replace(metrics, 'answer_ms', '{SECRET}'), visibility = 'private' WHERE cluster = 'acorn'",
    )
    with farm.engine.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    site = farm.publish()
    assert SECRET.encode() not in b"".join(bytes_of(site).values())


def test_a_cluster_without_permission_is_not_published(farm: Any) -> None:
    farm.finish_campaign()
    farm.inventory["birch"] = dataclasses.replace(farm.inventory["birch"], publish=False)
    everything = b"".join(bytes_of(farm.publish()).values())
    assert b"Acorn Hosting" in everything
    assert b"irch" not in everything


def test_an_empty_farm_has_proper_pages(farm: Any) -> None:
    site = farm.publish()
    words = words_of(site / "index.html")
    assert "Nothing has been measured yet" in words
    assert "not judged, no build was compared yet" in words
    for path, reader in pages(site):
        for link in reader.links:
            if not link.startswith(("https://", "data:,", "#")):
                assert (path.parent / link.partition("#")[0]).is_file(), f"{path}: {link}"


def test_a_campaign_half_way_is_provisional(farm: Any) -> None:
    farm.see_check_ins()
    farm.measure("acorn", 0)
    farm.queue("birch", 0, "running")
    farm.queue("acorn", 1)
    site = farm.publish()
    words = words_of(site / "index.html")
    assert "1 of 3 sessions are in" in words
    assert "Session 1 runs on Birch Cloud since" in words
    assert "Next: session 2 on Acorn Hosting" in words
    assert "n 1 block, provisional" in words_of(site / f"metrics/boot-answer_ms-v{VERSION['boot']}.html")
    assert "not judged provisional" in words_of(page_of(site, "Pack all drivers"))


def test_nothing_is_said_before_it_is_judged(farm: Any) -> None:
    """One block decides neither what segments do nor that a check-in or a cluster has no finding."""
    farm.see_check_ins()
    farm.measure("acorn", 0)
    site = farm.publish()
    front = words_of(site / "index.html")
    assert "faster than one PUT on Acorn Hosting is not judged yet: it takes 5 blocks in 2 sessions" in front
    assert "the newest has 1 block in 1 session, emulated, revision" in front
    assert "speed-up" not in front
    assert "not shown to be faster" not in front
    for path in (site / "clusters/acorn.html", page_of(site, "Pack all drivers")):
        assert "None yet: nothing has been judged." in words_of(path)
        assert "None." not in words_of(path)


def test_a_check_in_without_a_watched_parent_waits_for_no_verdict(judged_site: Path) -> None:
    words = words_of(page_of(judged_site, "Deploy Swift as released"))
    assert "None, and none will come: a check-in is held against its parent, and the parent of this one is not" in words
    assert "There is nothing here to compare it with." in words
    assert "nothing to compare with" in words
    assert "provisional" not in words.partition("As of")[0]


def test_a_merge_that_is_too_large_to_enter_says_so(farm: Any) -> None:
    farm.see_check_ins()
    with farm.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE check_in SET brought = number * 150")
    site = farm.publish()
    assert "merge of 150 commits author" not in words_of(page_of(site, "Deploy Swift"))
    assert "merge of 150 commits Findings" in words_of(page_of(site, "Pack all drivers"))
    assert "merge of 450 commits: more than 200 stay one step, and a finding names the merge" in words_of(
        page_of(site, "Write through")
    )


def test_where_something_was_judged_there_are_no_findings(farm: Any) -> None:
    farm.finish_campaign()
    with farm.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM finding")
    site = farm.publish()
    for path in (site / "clusters/acorn.html", page_of(site, "Pack all drivers")):
        assert re.search(r"Findings (here )?None\.", words_of(path))


def test_what_is_declared_not_judged_waits_for_nothing(judged_site: Path) -> None:
    """It is in no count of verdicts, and no figure of it is provisional."""
    page = page_of(judged_site, "Pack all drivers").read_text()
    rows = [Reader(row).words for row in page.split("<tr>") if "request to guest running</a>" in row]
    assert len(rows) == 2, "one for each cluster"
    assert all("declared not judged" in row and "provisional" not in row for row in rows)
    comparison = words_of(judged_site / "compare/acorn..birch.html")
    assert re.search(r"Of 7 metrics: .*; 5 more are declared not judged\.", comparison)
    assert "declared not judged provisional" not in comparison


def test_the_same_results_give_the_same_bytes(make_farm: Callable[[str], Any]) -> None:
    first, second = make_farm("first"), make_farm("second")
    first.finish_campaign()
    second.finish_campaign()
    one = bytes_of(first.publish())
    other = bytes_of(second.publish(now=datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)))
    assert one.keys() == other.keys()
    different = [name for name in one if one[name] != other[name] and name != "publication.txt"]
    assert different == []


def test_nothing_new_writes_nothing_and_something_new_does(farm: Any) -> None:
    farm.see_check_ins()
    site = farm.publish()
    edition = site.resolve()
    assert farm.publish().resolve() == edition
    farm.measure("acorn", 0)
    assert farm.publish().resolve() != edition
    assert (site / "sessions/acorn0.html").is_file()
    assert edition.is_dir(), "a reader who is still at the old edition keeps it"


def test_what_a_killed_publisher_left_is_swept(farm: Any) -> None:
    site = farm.publish()
    left = farm.settings.home / "sites" / "20260101T000000Z-half"
    left.mkdir()
    (farm.settings.home / "sites" / "next").symlink_to("20260101T000000Z-half")
    farm.see_check_ins()
    farm.publish()
    assert not left.exists()
    assert (site / "index.html").is_file()


def test_a_publisher_that_fails_leaves_the_old_site(farm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    site = farm.publish()
    before = bytes_of(site)
    farm.see_check_ins()

    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("reports.site.data_files", fail)
    with pytest.raises(OSError, match="no space"):
        farm.publish()
    assert bytes_of(site) == before


@pytest.mark.parametrize(
    "logo",
    [
        '<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
        '<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
        '<svg xmlns="http://www.w3.org/2000/svg"><a href="javascript:alert(1)"><path d=""/></a></svg>',
        '<svg xmlns="http://www.w3.org/2000/svg"><use href="https://elsewhere.example/x.svg#a"/></svg>',
        '<svg xmlns="http://www.w3.org/2000/svg"><path style="fill: url(https://elsewhere.example/)"/></svg>',
        '<!DOCTYPE svg [<!ENTITY a "b">]><svg xmlns="http://www.w3.org/2000/svg"/>',
        "<html><body>not a picture</body></html>",
    ],
)
def test_a_logo_that_is_more_than_a_picture_is_left_out(farm: Any, logo: str) -> None:
    (farm.settings.farm.inventory / "acorn.svg").write_text(logo)
    site = farm.publish()
    assert not (site / "logos/acorn.svg").exists()
    assert (site / "logos/birch.svg").is_file()
    assert 'class="initial"' in (site / "clusters/index.html").read_text()


def test_what_breaks_and_what_is_flaky_are_told_apart(farm: Any) -> None:
    farm.see_check_ins()
    farm.measure("acorn", 1)
    for block, (always, sometimes) in enumerate((("failed", "failed"), ("failed", "measured"))):
        for test, outcome in (("gone", always), ("shaky", sometimes), ("whole", "measured")):
            fault, reason = ("stack", "no") if outcome == "failed" else (None, None)
            row = {
                "session": "acorn1",
                "cluster": "acorn",
                "revision": revision_at(1),
                "scenario": "stack_tests",
                "version": 1,
            }
            told = {
                "params": {"test": test},
                "block": block,
                "round": 0,
                "outcome": outcome,
                "fault": fault,
                "reason": reason,
            }
            farm.add(tables.OutcomeRow(**PUBLIC, **row, **told, evidence=[]))
    words = words_of(farm.publish() / "revisions" / f"{revision_at(1)[:12]}.html")
    assert "stack_tests v1 test gone broken 0 of 2" in words
    assert "stack_tests v1 test shaky flaky 1 of 2" in words
    assert "test whole flaky" not in words
