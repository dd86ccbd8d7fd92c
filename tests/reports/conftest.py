"""A synthetic farm: two clusters, four check-ins, three sessions of 1, 2 and 2 blocks, written through the real tables."""

import dataclasses
import datetime
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine
from sqlalchemy.orm import Session as Transaction

from farm.campaigns import aa_question
from farm.inventory import Cluster, load_inventory
from farm.results import tables
from farm.results.database import open_database, transact
from farm.results.writing import write_analysis
from farm.settings import CHECKOUT, CampaignSettings, FarmFile, RepositorySettings, Settings
from reports import publish
from scenarios import sweeps
from scenarios.crossing import digest_of, revision_of, to_data
from scenarios.registry import SCENARIOS, identifying_params
from scenarios.sweeps import Sweep

START = datetime.datetime(2026, 3, 1, 8, 0, tzinfo=datetime.UTC)
SUBJECTS = (
    "Deploy Swift as released",
    "Pack all drivers into the guests' initramfs",
    "<script>alert('x')</script> & <img src=x onerror=alert(1)> ${7*7} {{ 7*7 }} \u202e$\\frac{",
    "Write through the hosts' cache",
)
BLOCKS = (1, 2, 2)
EPOCH = "e" * 64
SECRET = "kept-from-everybody"
# the scenarios' present versions, but for one whose figures are of a version that is gone
VERSION = {name: scenario.version for name, scenario in SCENARIOS.items()} | {"live_migration": 1}
PUBLIC = {"tenant": "local", "account": "local", "visibility": "public"}
# scenario, params, metric, unit, level, relative spread, higher is better
METRICS: tuple[tuple[str, dict[str, str], str, str, float, float], ...] = (
    ("boot", {}, "vmm_ms", "ms", 180, 0.05),
    ("boot", {}, "answer_ms", "ms", 2470, 0.05),
    ("boot", {}, "qemu_cpu_s", "s", 2.4, 0.03),
    ("cow_start", {"method": "overlay"}, "create_ms", "ms", 15, 0.2),
    ("cow_start", {"method": "overlay"}, "first_write_us", "us", 310, 0.06),
    ("cow_start", {"method": "reflink"}, "first_write_us", "us", 280, 0.06),
    ("cow_start", {"method": "copy"}, "create_ms", "ms", 669, 0.1),
    ("chunked_upload", {"shape": "single"}, "goodput_mib_s", "MiB/s", 101, 0.15),
    ("chunked_upload", {"shape": "segments"}, "goodput_mib_s", "MiB/s", 96, 0.15),
    ("chunked_upload", {"shape": "segments"}, "speedup", "ratio", 0.95, 0.1),
    ("live_migration", {}, "total_ms", "ms", 878, 0.1),
    ("live_migration", {}, "blackout_ms", "ms", 337, 0.2),
)


def revision_at(number: int) -> str:
    return revision_of({"example": commit_at(number)})


def commit_at(number: int) -> str:
    return digest_of(["commit", number])[:40]


@dataclasses.dataclass(frozen=True)
class SyntheticFarm:
    """A farm with results; `publish()` writes its site and returns the folder."""

    engine: Engine
    settings: Settings
    inventory: dict[str, Cluster]

    def publish(self, now: datetime.datetime = START) -> Path:
        return publish(self.engine, self.settings, self.inventory, now)

    def add(self, *rows: Any) -> None:
        transact(self.engine, lambda transaction: transaction.add_all(rows))

    def see_check_ins(self) -> None:
        self.add(*(_check_in(number, subject) for number, subject in enumerate(SUBJECTS)))

    def queue(self, cluster: str, ordinal: int, state: str = "queued") -> str:
        row = _session(cluster, ordinal, state)
        self.add(row)
        return row.id

    def measure(self, cluster: str, ordinal: int) -> str:
        """One finished session with its bundle on disk, samples (one void) and outcomes (one failed migration)."""
        row = _session(cluster, ordinal, "done")
        files = _write_bundle(self.settings, row.id)
        self.add(row)
        self.add(_bundle(row, files, cluster))
        self.add(*_probes(row))
        transact(self.engine, lambda transaction: _measure(transaction, row, cluster, ordinal))
        return row.id

    def measure_aa(self, cluster: str, campaign: str, blocks: int = 5, epoch: str = EPOCH) -> str:
        """A finished A/A session: the canary and its twin in blocks, every metric; returns the twin's revision."""
        example = RepositorySettings("example", "https://git.example/deployment")
        question = aa_question(example, commit_at(0), campaign)
        row = _session(cluster, len(BLOCKS) - 1, "done")
        row.id, row.key, row.blocks = f"{cluster}-{campaign}", digest_of([cluster, campaign]), blocks
        row.purpose, row.campaign, row.revision = question.purpose, campaign, question.revision
        row.base_revision, row.builds = question.base_revision, [to_data(build) for build in question.builds]
        self.add(row)
        self.add(_bundle(row, {}, cluster))
        (self.settings.bundles_dir / f"{row.id}-1").mkdir(parents=True)
        transact(self.engine, lambda transaction: _measure_aa(transaction, row, cluster, epoch))
        return question.revision

    def measure_sweep(self, cluster: str, name: str, number: int) -> None:
        """A finished session of this sweep for check-in `number`; each combination is 1 more than the one before."""
        sweep = sweeps.load(name)
        row = _session(cluster, 0, "done")
        row.id, row.key = f"{cluster}-{name}", digest_of([cluster, name])
        row.purpose, row.campaign, row.revision = "sweep", f"example-{name}", revision_at(number)
        row.blocks, row.scenarios = sweep.blocks, [to_data(cell) for cell in sweep.cells]
        self.add(row)
        self.add(_bundle(row, {}, cluster))
        (self.settings.bundles_dir / f"{row.id}-1").mkdir(parents=True)
        transact(self.engine, lambda transaction: _measure_sweep(transaction, row, cluster, sweep, number))

    def judge(self) -> None:
        """Put down the verdicts that these samples call for."""
        comparisons = [*_against_parents(), *_against_clusters()]
        findings = [a_finding(cluster) for cluster in ("acorn", "birch")]
        made_at = START + datetime.timedelta(days=1)
        write_analysis(
            self.engine, version=1, cause="synthetic", made_at=made_at, comparisons=comparisons, findings=findings
        )

    def find(self, cluster: str, **changed: Any) -> None:
        """Put down an analysis with one finding alone: check-in 1 made boot slower, unless `changed` says otherwise."""
        findings = [a_finding(cluster, **changed)]
        write_analysis(self.engine, version=1, cause="one", made_at=START, comparisons=[], findings=findings)

    def finish_campaign(self) -> None:
        self.see_check_ins()
        for ordinal in range(len(BLOCKS)):
            for cluster in ("acorn", "birch"):
                self.measure(cluster, ordinal)
        self.judge()


@pytest.fixture
def make_farm(tmp_path: Path) -> Callable[[str], SyntheticFarm]:
    """Empty farms by name; the inventory is a copy of the house's own, so that tests may change it."""

    def make(name: str = "farm") -> SyntheticFarm:
        home = tmp_path / name
        home.mkdir()
        shutil.copytree(CHECKOUT / "inventory", home / "inventory")
        file = FarmFile(
            inventory=home / "inventory",
            repository=(RepositorySettings("example", "https://git.example/deployment"),),
            campaign=CampaignSettings(blocks=BLOCKS),
        )
        settings = Settings(home, None, file)
        return SyntheticFarm(open_database(settings.database_url), settings, load_inventory(file.inventory))

    return make


@pytest.fixture
def farm(make_farm: Callable[[str], SyntheticFarm]) -> SyntheticFarm:
    return make_farm("farm")


@pytest.fixture(scope="module")
def judged_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of a finished campaign, written once for the tests that only read it."""
    return _finished(tmp_path_factory.mktemp("judged")).publish()


@pytest.fixture(scope="module")
def swept_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a sweep."""
    made = _finished(tmp_path_factory.mktemp("swept"))
    for cluster in ("acorn", "birch"):
        made.measure_sweep(cluster, "boot-memory", 2)
    return made.publish()


def _finished(home: Path) -> SyntheticFarm:
    settings = Settings(home, None, FarmFile())
    made = SyntheticFarm(open_database(settings.database_url), settings, load_inventory(CHECKOUT / "inventory"))
    made.finish_campaign()
    return made


def _check_in(number: int, subject: str) -> tables.CheckIn:
    return tables.CheckIn(
        **PUBLIC,
        repository="example",
        number=number,
        revision=revision_at(number),
        commit=commit_at(number),
        parent_revision=revision_at(number - 1) if number else None,
        subject_line=subject,
        author="A Developer <dev@example.org>",
        committed_at=START - datetime.timedelta(days=10 - number),
        seen_at=START - datetime.timedelta(hours=1),
    )


def _session(cluster: str, ordinal: int, state: str) -> tables.Session:
    began = START + datetime.timedelta(hours=2 * ordinal, minutes=30 * (cluster == "birch"))
    builds = [
        {
            "revision": revision_at(number),
            "label": subject,
            "roles": ["window", "canary"] if number == 0 else ["window"],
            "repository": f"/{SECRET}/a/path/of/the/machine",
            "commit": commit_at(number),
        }
        for number, subject in enumerate(SUBJECTS)
    ]
    return tables.Session(
        **PUBLIC,
        id=f"{cluster}{ordinal}",
        key=digest_of([cluster, ordinal]),
        purpose="history",
        campaign="history-example",
        ordinal=ordinal,
        repository="example",
        revision=revision_at(len(SUBJECTS) - 1),
        cluster=cluster,
        blocks=BLOCKS[ordinal],
        rounds=1,
        builds=builds,
        priority=0,
        state=state,
        attempt=1 if state != "queued" else 0,
        plan={
            "scenarios": [{"name": "boot", "version": VERSION["boot"], "params": {}}],
            "seed": 42,
            "deadline_s": 1500,
            "harness": "h" * 64,
        },
        plan_digest=digest_of(["plan", cluster, ordinal]),
        created_at=START,
        started_at=began if state != "queued" else None,
        finished_at=began + datetime.timedelta(minutes=20) if state == "done" else None,
    )


def _write_bundle(settings: Settings, session: str) -> dict[str, str]:
    folder = settings.bundles_dir / f"{session}-1"
    (folder / "logs").mkdir(parents=True)
    contents = {
        "manifest.json": json.dumps({"session": session}),
        "manifest.json.sig": "-----BEGIN SSH SIGNATURE-----\n",
        "samples.jsonl": "{}\n",
        "facts.json": "{}",
        "logs/farm.html": "<b>a log that would be a page</b>",
    }
    for name, content in contents.items():
        (folder / name).write_text(content)
    return {name: digest_of(content) for name, content in contents.items()}


def _bundle(session: tables.Session, files: dict[str, str], cluster: str) -> tables.Bundle:
    qemu = {"acorn": "7.2.17", "birch": "10.0.2"}[cluster]
    builds = [
        {
            "revision": build["revision"],
            "lock": "l" * 64,
            "code": "c" * 64,
            "settings": {"guest": {"vcpus": 1}, "swift": {"replicas": 3}},
        }
        for build in session.builds
    ]
    return tables.Bundle(
        **PUBLIC,
        sha256=digest_of(["bundle", session.id]),
        session=session.id,
        attempt=1,
        accepted=True,
        manifest={"builds": builds, "files": files},
        facts={
            "declared": {"qemu": qemu, "kernel": "6.1.0", "cpu": "Synthetic <b>CPU</b>"},
            "hosts": {"h1": {"memory_mib": 24000, "cores": "2"}, "h2": {"memory_mib": 24000, "cores": "2"}},
            "clock_bounds_s": {"h1": 0.00002, "h2": 0.00003},
            "packages": {"d" * 64: ["systemd 252.1", "zstd <1.5>"]},
            "operator_image": {"file_sha256": "0f" * 32, "disk_sha256": "1e" * 32},
            "sizes_mib": {"base image": 128.0},
            "guest_images": {},
            "fidelity": {"concluded": "emulated", "evidence": ["no /dev/kvm: QEMU ran its own TCG"]},
            "load": {
                "before": [0.2, 0.25, 1.0],
                "after": [2.0, 1.5, 1.0],
                "spent_s": {"measure": 118.94, "build": 0.7},
                "cpu_s": {"machine": 203.1, "session": 4.2, "observer": 1.3},
            },
        },
        fidelity="emulated",
        received_at=session.finished_at,
    )


PROBES: tuple[tuple[str, str, str | None, float], ...] = (
    ("disk write", "h1", None, 900.0),
    ("disk write", "storage", None, 600.0),
    ("flush", "h1", None, 110.0),
    ("network", "h1", "h2", 1500.0),
    ("network", "observer", "storage", 1200.0),
)


def _probes(session: tables.Session) -> list[tables.ProbeRow]:
    """Before and after every block, each time a little worse than at best."""
    assert session.started_at is not None
    worse = [1 + 0.1 * (block + session.ordinal) for block in range(session.blocks + 1)]
    return [
        tables.ProbeRow(
            **PUBLIC,
            session=session.id,
            cluster=session.cluster,
            epoch=EPOCH,
            kind=kind,
            at=at,
            to=to,
            value=value * worse[block] if kind == "flush" else value / worse[block],
            block=block,
            taken_at=session.started_at + datetime.timedelta(minutes=block),
        )
        for block in range(session.blocks + 1)
        for kind, at, to, value in PROBES
    ]


def factor(number: int, cluster: str, scenario: str, metric: str) -> float:
    """What check-ins 1 and 3 and the cluster do to a metric."""
    slow = 1.6 if number >= 1 and scenario == "boot" and metric != "vmm_ms" else 1.0
    slow *= 2.9 if number >= 3 and metric == "first_write_us" else 1.0
    return slow * (1.15 if cluster == "birch" and metric != "speedup" else 1.0)


def _measure(transaction: Transaction, session: tables.Session, cluster: str, ordinal: int) -> None:
    rng = np.random.default_rng([ordinal, cluster == "birch"])
    for scenario, params, metric, unit, level, spread in METRICS:
        series = _series(transaction, cluster, scenario, params, metric, unit)
        for block in range(BLOCKS[ordinal]):
            for order, number in enumerate(rng.permutation(len(SUBJECTS))):
                value = level * factor(int(number), cluster, scenario, metric) * float(np.exp(rng.normal(0, spread)))
                void = scenario == "live_migration" and cluster == "acorn" and (ordinal, block, number) == (1, 0, 2)
                transaction.add(_sample(session, series, block, order, int(number), value, void))
    for block in range(BLOCKS[ordinal]):
        for number in range(len(SUBJECTS)):
            failed = cluster == "acorn" and (ordinal, block, number) == (2, 0, 3)
            transaction.add(_outcome(session, block, number, failed))


def _measure_aa(transaction: Transaction, session: tables.Session, cluster: str, epoch: str) -> None:
    rng = np.random.default_rng([7, cluster == "birch"])
    for scenario, params, metric, unit, level, spread in METRICS:
        series = _series(transaction, cluster, scenario, params, metric, unit, epoch)
        for block in range(session.blocks):
            for order, build in enumerate(session.builds):
                sample = _sample(session, series, block, order, 0, level * float(np.exp(rng.normal(0, spread))), False)
                sample.revision = build["revision"]
                transaction.add(sample)


def _measure_sweep(transaction: Transaction, session: tables.Session, cluster: str, sweep: Sweep, number: int) -> None:
    for place, cell in enumerate(sweep.cells):
        for metric in SCENARIOS[sweep.scenario].metrics:
            params = identifying_params(cell)
            series = _series(transaction, cluster, sweep.scenario, params, metric.name, metric.unit)
            for block in range(sweep.blocks):
                transaction.add(_sample(session, series, block, 0, number, 1.0 + place, False))


def _series(
    transaction: Transaction,
    cluster: str,
    scenario: str,
    params: dict[str, str],
    metric: str,
    unit: str,
    epoch: str = EPOCH,
) -> int:
    key = digest_of([cluster, scenario, params, metric, epoch])
    found = transaction.query(tables.Series).filter_by(key=key).one_or_none()
    if found is None:
        found = tables.Series(
            **PUBLIC,
            key=key,
            stack="example",
            cluster=cluster,
            scenario=scenario,
            version=VERSION[scenario],
            metric=metric,
            unit=unit,
            params=params,
            placement="one host",
            guest="g" * 64,
            canary=revision_at(0),
            epoch=epoch,
        )
        transaction.add(found)
        transaction.flush()
    return found.id


def _sample(
    session: tables.Session, series: int, block: int, order: int, number: int, value: float, void: bool
) -> tables.SampleRow:
    assert session.started_at is not None
    return tables.SampleRow(
        **PUBLIC,
        session=session.id,
        series=series,
        block=block,
        round=0,
        attempt=1,
        order=order,
        revision=revision_at(number),
        value=value,
        hosts={"source": "h1", "host": "h1"},
        warm_up=False,
        valid=not void,
        void_reason="=the guest ran on two hosts <b>" if void else None,
        taken_at=session.started_at + datetime.timedelta(minutes=block),
    )


def _outcome(session: tables.Session, block: int, number: int, failed: bool) -> tables.OutcomeRow:
    return tables.OutcomeRow(
        **PUBLIC,
        session=session.id,
        cluster=session.cluster,
        revision=revision_at(number),
        scenario="live_migration",
        version=1,
        params={},
        block=block,
        round=0,
        outcome="failed" if failed else "measured",
        fault="hypervisor" if failed else None,
        reason="the guest's memory did not verify after the migration" if failed else None,
        evidence=[],
    )


def _may_be_judged(entry: tuple[str, dict[str, str], str, str, float, float]) -> bool:
    """What a scenario declares not judged gets no verdict."""
    return all(metric.judged for metric in SCENARIOS[entry[0]].metrics if metric.name == entry[2])


def _against_parents() -> list[tables.ComparisonRow]:
    rows = []
    for cluster in ("acorn", "birch"):
        for number in range(1, len(SUBJECTS)):
            for entry in METRICS:
                ratio = factor(number, cluster, entry[0], entry[2]) / factor(number - 1, cluster, entry[0], entry[2])
                verdict = "different" if ratio != 1 else "no difference beyond δ" if entry[5] < 0.06 else "inconclusive"
                verdict = verdict if _may_be_judged(entry) else "not judged"
                rows.append(
                    comparison(
                        cluster, number, entry, ratio=ratio, verdict=verdict, other_revision=revision_at(number - 1)
                    )
                )
    return rows


def _against_clusters() -> list[tables.ComparisonRow]:
    rows = []
    for number in range(len(SUBJECTS)):
        for entry in METRICS:
            ours, theirs = (entry[4] * factor(number, name, entry[0], entry[2]) for name in ("acorn", "birch"))
            ratio = ours / theirs
            verdict = "different" if ratio != 1 and entry[5] < 0.1 else "inconclusive"
            verdict = "not judged" if entry[0] == "live_migration" or not _may_be_judged(entry) else verdict
            rows.append(
                comparison(
                    "acorn",
                    number,
                    entry,
                    level=ours,
                    other_level=theirs,
                    ratio=ratio,
                    verdict=verdict,
                    between="clusters",
                    other_cluster="birch",
                    replication="session",
                    n=3,
                )
            )
    return rows


def comparison(
    cluster: str, number: int, entry: tuple[str, dict[str, str], str, str, float, float], **changed: Any
) -> tables.ComparisonRow:
    scenario, params, metric, unit, _, spread = entry
    ratio = changed["ratio"]
    row: dict[str, Any] = {
        **PUBLIC,
        "between": "revisions",
        "cluster": cluster,
        "repository": "example",
        "revision": revision_at(number),
        "scenario": scenario,
        "version": VERSION[scenario],
        "metric": metric,
        "unit": unit,
        "params": params,
        "low": ratio * (1 - spread),
        "high": ratio * (1 + spread),
        "n": 5,
        "replication": "block",
        "sessions": 3,
        "p_value": 0.0001,
        "p_adjusted": 0.001,
        "delta": 0.1,
        "fidelity": "emulated",
    }
    return tables.ComparisonRow(**{**row, **changed})


def a_finding(cluster: str, **changed: Any) -> tables.Finding:
    moved = [
        {"scenario": "boot", "version": VERSION["boot"], "metric": metric, "unit": unit, "params": {}, "ratio": ratio,
         "low": ratio - 0.05, "high": ratio + 0.06, "n": 5, "replication": "block", "direction": "slower"}
        for metric, unit, ratio in (("answer_ms", "ms", 1.6), ("qemu_cpu_s", "s", 1.58))
    ]  # fmt: skip
    row: dict[str, Any] = {
        **PUBLIC,
        "key": digest_of(["finding", cluster]),
        "kind": "product",
        "state": "confirmed",
        "cluster": cluster,
        "repository": "example",
        "revision": revision_at(1),
        "last_good": revision_at(0),
        "direction": "slower",
        "metrics": moved,
        "found_at": START + datetime.timedelta(hours=7),
    }
    return tables.Finding(**{**row, **changed})
