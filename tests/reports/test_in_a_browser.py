"""The pages as a real browser lays them out: on a phone, on a desk, in the dark; no script is needed for it."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.reports.conftest import VERSION

_PAGES = (
    *("index.html", "method.html", "noise.html", "data/index.html", "revisions/index.html", "metrics/index.html"),
    *(
        f"metrics/boot-answer_ms-v{VERSION['boot']}.html",
        "clusters/index.html",
        "clusters/acorn.html",
        "compare/acorn..birch.html",
    ),
    *("sessions/index.html", "sessions/acorn2.html", "sweeps/index.html", "sweeps/boot-memory.html"),
)
_TIMEOUT_S = 60
# frames of the width in question, which the measuring page may look into; the site's own pages run no script
_MEASURE = """<!doctype html><title>measuring</title>{frames}<pre id="found"></pre><script>
onload = () => {{ found.textContent = JSON.stringify([...document.querySelectorAll("iframe")].map(frame => {{
  const page = frame.contentDocument, style = frame.contentWindow.getComputedStyle(page.body);
  return {{address: frame.title, width: page.documentElement.clientWidth, needed: page.documentElement.scrollWidth,
    background: style.backgroundColor, text: style.color,
    verdicts: [...page.querySelectorAll("table.ratios tbody tr")].map(row => row.cells[2].getBoundingClientRect().right),
    legend: [...page.querySelectorAll("svg text")].map(text => frame.contentWindow.getComputedStyle(text).fill)}};
}})); }};
</script>"""


def look(site: Path, tmp_path: Path, width: int, *flags: str) -> list[dict[str, Any]]:
    """How Chromium lays out every page in a frame of `width` pixels."""
    pages = [*_PAGES, *(str(path.relative_to(site)) for path in sorted(site.glob("revisions/*.html"))[:2])]
    frames = "".join(
        f'<iframe title="{page}" src="{(site / page).as_uri()}" width="{width}" height="800"></iframe>'
        for page in pages
    )
    measuring = tmp_path / "measuring.html"
    measuring.write_text(_MEASURE.format(frames=frames))
    command = [
        *(
            "chromium",
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
        ),
        *("--disable-component-update", "--disable-sync", "--allow-file-access-from-files", *flags),
        *(f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", measuring.as_uri()),
    ]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True).stdout
    found = re.search(r'<pre id="found">(.*?)</pre>', dom, flags=re.DOTALL)
    assert found, "the browser did not finish"
    seen: list[dict[str, Any]] = json.loads(found[1])
    assert len(seen) == len(pages)
    return seen


@pytest.mark.parametrize("width", [360, 1280])
def test_no_page_is_wider_than_the_screen(swept_site: Path, tmp_path: Path, width: int) -> None:
    for page in look(swept_site, tmp_path, width):
        assert page["needed"] == page["width"], f"{page['address']} scrolls sideways at {width} px"
        assert int(str(page["width"])) > width - 25, "measured at the width that was asked for"


def test_ratio_and_verdict_are_on_a_phones_screen(swept_site: Path, tmp_path: Path) -> None:
    compared = [page for page in look(swept_site, tmp_path, 360) if page["verdicts"]]
    assert {page["address"].partition("/")[0] for page in compared} == {"compare", "revisions"}
    for page in compared:
        # a row inside a closed part has no place
        assert 0 < max(page["verdicts"]) <= page["width"], f"{page['address']}: verdicts end at {page['verdicts']}"


def test_the_dark_page_is_dark_and_its_charts_are_readable(swept_site: Path, tmp_path: Path) -> None:
    for page in look(swept_site, tmp_path, 800, "--blink-settings=preferredColorScheme=0"):
        assert page["background"] == "rgb(18, 22, 28)", page["address"]
        assert set(page["legend"]) <= {"rgb(227, 232, 239)", "rgb(152, 164, 181)"}, page["address"]
    for page in look(swept_site, tmp_path, 800):
        assert page["background"] == "rgb(255, 255, 255)", page["address"]
