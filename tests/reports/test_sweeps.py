"""The pages of sweeps show every combination, and keep the pages of check-ins free of them."""

import re

from scenarios import sweeps
from tests.reports.conftest import SyntheticFarm, revision_at
from tests.reports.test_site import Reader, words_of

NAME = "boot-memory"


def test_a_sweep_that_was_not_measured_says_how_to(farm: SyntheticFarm) -> None:
    words = words_of(farm.publish() / "sweeps/index.html")
    for name in sweeps.names():
        assert sweeps.load(name).title in words
        assert f"farm session run --sweep {name}" in words


def test_every_combination_of_the_newest_check_in_is_shown_by_cluster(farm: SyntheticFarm) -> None:
    farm.see_check_ins()
    farm.measure_sweep("acorn", NAME, 2)
    farm.measure_sweep("birch", NAME, 2)
    site = farm.publish()
    page = Reader((site / f"sweeps/{NAME}.html").read_text())
    sweep = sweeps.load(NAME)
    (values,) = sweep.axis.values()
    figures = {round(float(str(figure["value"])), 6) for figure in page.figures}
    blocks = sweep.blocks
    words = words_of(site / f"sweeps/{NAME}.html")
    first = re.search(r"boot: request to first answer in ms, n in blocks.*?" + str(values[0]), words)
    assert first is not None
    for place, value in enumerate(values):
        row = rf"{value} {1 + place} ms n {blocks} blocks, provisional {1 + place} ms n {blocks} blocks, provisional"
        assert re.search(row, words), row
    assert figures == {1.0 + place for place in range(len(values))}
    assert f"../revisions/{revision_at(2)[:12]}.html" in page.links


def test_a_cluster_that_was_not_asked_has_no_column(farm: SyntheticFarm) -> None:
    farm.see_check_ins()
    farm.measure_sweep("acorn", NAME, 2)
    words = words_of(farm.publish() / f"sweeps/{NAME}.html")
    assert "Acorn Hosting, emulated" in words
    assert "Birch Cloud, emulated" not in words


def test_what_only_sweeps_measure_is_on_no_check_ins_page(farm: SyntheticFarm) -> None:
    farm.finish_campaign()
    farm.measure_sweep("acorn", NAME, 2)
    site = farm.publish()
    (parameter,) = sweeps.load(NAME).axis
    told = parameter.replace("_", " ")
    assert told not in words_of(site / "revisions" / f"{revision_at(2)[:12]}.html")
    index = words_of(site / "metrics/index.html")
    assert told not in index[: index.index("Asked by sweeps alone")]
    assert told in index[index.index("Asked by sweeps alone") :]


def test_what_another_session_measured_of_a_combination_is_not_in_a_sweep(farm: SyntheticFarm) -> None:
    """Both ask for a boot as by default, at another hour."""
    farm.see_check_ins()
    farm.measure_sweep("acorn", "boot-cold", 2)
    farm.measure_sweep("acorn", "boot-firmware", 2)
    words = words_of(farm.publish() / "sweeps/boot-cold.html")
    assert set(re.findall(r"n (\d+) block", words)) == {str(sweeps.load("boot-cold").blocks)}
