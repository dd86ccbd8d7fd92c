"""Publication: the whole site written afresh beside the old one, then put in its place at once.

    FARM_HOME/site            a link to the edition that readers see
    FARM_HOME/sites/<edition> the editions: the one that stands, and the one before it for readers still at it

A reader never sees half a site, whenever the publisher is killed; what a killed one left goes with the next.
"""

import datetime
import fcntl
import functools
import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jinja2
from sqlalchemy import Engine

from farm.analysis import rules
from farm.inventory import Cluster
from farm.results import queries
from farm.results.signatures import allowed_signers
from farm.settings import CHECKOUT, Settings
from farm.verdicts import DECLARED_NOT_JUDGED
from reports.branding import safe_link, safe_logo
from reports.bundles import publish_bundle
from reports.limits import percent_text
from reports.material import ClusterView, Material
from reports.metrics import number_text, ratio_text
from reports.pages import Page
from reports.pages.clusters import cluster_pages
from reports.pages.comparison import comparison_pages
from reports.pages.findings import FindingView, finding_views
from reports.pages.front import front_pages
from reports.pages.metrics import metric_pages
from reports.pages.noise import noise_page
from reports.pages.revisions import revision_pages
from reports.pages.sessions import session_pages
from reports.pages.sweeps import sweep_pages
from reports.raw import data_files
from scenarios.crossing import digest_of

_TEMPLATES = Path(__file__).parent / "templates"
_CODE = ("reports", "scenarios", "farm/analysis")  # what decides a page's content beside the results
_LOCK_TIMEOUT_S = 120.0
_RECORD = "publication.txt"
_NAVIGATION = (
    ("index.html", "Overview"),
    ("revisions/index.html", "Check-ins"),
    ("metrics/index.html", "Metrics"),
    ("clusters/index.html", "Clusters"),
    ("compare/index.html", "Comparison"),
    ("sessions/index.html", "Sessions"),
    ("sweeps/index.html", "Sweeps"),
    ("noise.html", "Noise"),
    ("method.html", "Method"),
    ("data/index.html", "Data"),
)


class PublicationBusy(Exception):
    """Another process has been publishing for too long."""


def publish(engine: Engine, settings: Settings, inventory: Mapping[str, Cluster], now: datetime.datetime) -> Path:
    """Write the public site to `settings.site_dir` and return that path; does nothing when nothing changed.

    The same results give the same bytes; `now` only names the edition. Raises PublicationBusy.
    """
    with _alone(settings.home):
        digest = _digest(engine, settings, inventory)
        if _published(settings.site_dir) != digest:
            editions = settings.home / "sites"
            _sweep(editions, settings.site_dir)
            edition = editions / f"{now.astimezone(datetime.UTC):%Y%m%dT%H%M%SZ}-{digest[:12]}"
            _write(engine, settings, inventory, edition)
            (edition / _RECORD).write_text(f"{digest}\n")
            _put_in_place(edition, settings.site_dir)
    return settings.site_dir


def is_current(engine: Engine, settings: Settings, inventory: Mapping[str, Cluster]) -> bool:
    """Whether the site that stands shows everything there is now."""
    return _published(settings.site_dir) == _digest(engine, settings, inventory)


def _digest(engine: Engine, settings: Settings, inventory: Mapping[str, Cluster]) -> str:
    """Of everything that the site is made of: results, inventory, logos and the code that writes it."""
    logos = {name: _bytes_of(settings.farm.inventory / cluster.donor.logo) for name, cluster in inventory.items()}
    results = queries.publication_digest(engine, queries.public_scope(inventory))
    return digest_of([results, repr(sorted(inventory.items())), logos, _signers(inventory, settings), _code_digest()])


def _signers(inventory: Mapping[str, Cluster], settings: Settings) -> str:
    return allowed_signers((one for _, one in sorted(inventory.items()) if one.publish), settings.home)


def _bytes_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


@functools.cache
def _code_digest() -> str:
    files = [path for folder in _CODE for path in sorted((CHECKOUT / folder).rglob("*"))]
    return digest_of({str(path): _bytes_of(path) for path in files if path.is_file() and path.suffix != ".pyc"})


def _published(site: Path) -> str | None:
    record = site / _RECORD
    return record.read_text().strip() if record.is_file() else None


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """One publisher at a time; the lock ends with its process."""
    (home / "run").mkdir(parents=True, exist_ok=True)
    give_up_at = time.monotonic() + _LOCK_TIMEOUT_S
    with (home / "run" / "publish.lock").open("w") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up_at:
                    raise PublicationBusy(f"another process has been publishing for {_LOCK_TIMEOUT_S:.0f} s") from None
                time.sleep(0.1)
        yield


def _sweep(editions: Path, site: Path) -> None:
    """Remove every edition but the one that stands."""
    editions.mkdir(parents=True, exist_ok=True)
    standing = site.resolve() if site.is_symlink() else None
    for path in editions.iterdir():
        if path.is_symlink():
            path.unlink()
        elif path.resolve() != standing:
            shutil.rmtree(path)


def _put_in_place(edition: Path, site: Path) -> None:
    link = edition.parent / "next"
    link.symlink_to(edition.relative_to(site.parent))
    os.replace(link, site)


def _write(engine: Engine, settings: Settings, inventory: Mapping[str, Cluster], edition: Path) -> None:
    edition.mkdir(parents=True)
    clusters = {
        name: _view(cluster, settings.farm.inventory, edition) for name, cluster in inventory.items() if cluster.publish
    }
    material = Material(engine, inventory, clusters)
    findings = finding_views(material)
    render = _renderer(material)
    for page in _pages(material, findings, _publish_bundles(material, settings, edition)):
        _write_text(edition / page.path, render(page))
    _write_text(edition / "data" / "allowed_signers", _signers(inventory, settings))
    for path, content in data_files(material, findings):
        _write_text(edition / path, content)
    shutil.copyfile(_TEMPLATES / "site.css", edition / "site.css")


def _pages(material: Material, findings: list[FindingView], bundle_files: dict[str, list[str]]) -> Iterator[Page]:
    yield from front_pages(material, findings)
    yield from revision_pages(material, findings)
    yield from metric_pages(material)
    yield from sweep_pages(material)
    yield noise_page(material)
    yield from cluster_pages(material, findings)
    yield from comparison_pages(material)
    yield from session_pages(material, bundle_files)
    yield Page("data/index.html", "data.html.j2", "data/index.html", {"metrics": material.metrics})


def _view(cluster: Cluster, folder: Path, edition: Path) -> ClusterView:
    logo = safe_logo(folder / cluster.donor.logo)
    path = None
    if logo is not None:
        path = f"logos/{cluster.name}{logo[0]}"
        (edition / "logos").mkdir(exist_ok=True)
        (edition / path).write_bytes(logo[1])
    return ClusterView(cluster, path, safe_link(cluster.donor.url))


def _publish_bundles(material: Material, settings: Settings, edition: Path) -> dict[str, list[str]]:
    return {
        session: publish_bundle(
            settings.bundles_dir / f"{session}-{bundle.attempt}", edition / "data" / "bundles" / session
        )
        for session, bundle in material.answered.items()
    }


def _renderer(material: Material) -> Any:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number_text, "ratio": ratio_text, "percent": percent_text}
    environment.globals |= {
        "navigation": _NAVIGATION,
        "analysis": material.analysis,
        "as_of": material.as_of,
        "views": list(material.clusters.values()),
        "fidelities": {name: material.fidelity_of(name) for name in material.clusters},
        "rules": rules,
        "declared_not_judged": DECLARED_NOT_JUDGED,
    }

    def render(page: Page) -> str:
        root = "../" * page.path.count("/")
        template = environment.get_template(page.template)
        return template.render(**page.content, root=root, here=page.path, section=page.section)

    return render


def _write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
