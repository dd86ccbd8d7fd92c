"""Makes plans and signed bundles as a worker would, and lets tests spoil them at any point.

plan = a_plan(cluster)
Draft(plan, declared).pack(key, out)
"""

import gzip
import hashlib
import io
import json
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from farm.inventory import Cluster
from farm.results.admission import Declared
from scenarios.contract import Metric
from scenarios.crossing import (
    SCHEMA,
    Facts,
    FidelityFact,
    Lease,
    Manifest,
    Outcome,
    Plan,
    PlannedBuild,
    PlannedCluster,
    PlannedHost,
    PlannedScenario,
    Probe,
    ResolvedBuild,
    Role,
    Sample,
    digest_of,
    to_data,
)
from scenarios.registry import identifying_params
from workers.bundle import sign

DECLARED: Declared = {
    ("boot", 1): {
        "answer_ms": Metric("answer_ms", "ms", "lower", 0.1, "Boot to the first answer"),
        "qemu_cpu_s": Metric("qemu_cpu_s", "s", "lower", 0.1, "CPU time of QEMU"),
    },
    ("live_migration", 1): {"total_ms": Metric("total_ms", "ms", "lower", 0.25, "Live migration, total")},
}
SCENARIO_HOSTS = {"live_migration": {"source": "h1", "target": "h2"}}
CANARY, PARENT, SUBJECT = ("c" * 64, "a" * 64, "b" * 64)


def make_key(private: Path) -> Path:
    """A real ssh key pair without a passphrase; returns the private file, the public one is beside it."""
    private.parent.mkdir(parents=True, exist_ok=True)
    arguments = ["-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(private)]
    subprocess.run(["ssh-keygen", *arguments], check=True, timeout=20)
    return private


def a_build(revision: str, *roles: Role) -> PlannedBuild:
    return PlannedBuild(revision, f"check-in {revision[:7]}", roles, "example", revision[:40])


def a_plan(
    cluster: Cluster,
    session: str = "s1",
    attempt: int = 1,
    builds: tuple[PlannedBuild, ...] = (
        a_build(SUBJECT, "subject"),
        a_build(PARENT, "parent"),
        a_build(CANARY, "canary"),
    ),
    declared: Declared = DECLARED,
    blocks: int = 2,
) -> Plan:
    """A plan for all hosts of the cluster and all declared scenarios."""
    hosts = tuple(PlannedHost(host.name, host.uri, host.zone) for host in cluster.host)
    return Plan(
        schema=SCHEMA,
        harness="f" * 64,
        session=session,
        attempt=attempt,
        cluster=PlannedCluster(cluster.name, cluster.driver, hosts, cluster.storage.disks, cluster.storage.disk_mib),
        lease=Lease(f"session:{session}", 1, cluster.resources, "2026-01-01T01:00:00+00:00"),
        builds=builds,
        scenarios=tuple(PlannedScenario(name, version) for name, version in sorted(declared)),
        blocks=blocks,
        rounds=1,
        seed=1,
        deadline_s=1500,
    )


class Draft:
    """A valid bundle as plain data: change what you like, then `pack` it."""

    def __init__(
        self,
        plan: Plan,
        declared: Declared = DECLARED,
        value: Callable[[str, str, str, int], float] = lambda revision, scenario, metric, block: 100.0 + block,
    ) -> None:
        self.samples: list[dict[str, Any]] = []
        outcomes = []
        for build in plan.builds:
            for place in (
                (build.revision, planned, block) for planned in plan.scenarios for block in range(plan.blocks)
            ):
                revision, planned, block = place
                outcomes.append(_an_outcome(revision, planned, block))
                for metric in declared[planned.name, planned.version].values():
                    figure = value(revision, planned.name, metric.name, block)
                    self.samples.append(to_data(_a_sample(plan, revision, planned, block, metric, figure)))
        self.facts: dict[str, Any] = to_data(_some_facts(plan))
        self.probes: list[dict[str, Any]] = [to_data(probe) for probe in _some_probes(plan)]
        self.logs: dict[str, bytes] = {"logs/session.log": b"all went well\n"}
        self.manifest: dict[str, Any] = to_data(_a_manifest(plan, outcomes))
        self.lines: list[bytes] | None = None  # instead of `samples`
        self.after_listing: Callable[[dict[str, bytes]], object] = lambda files: None
        self.members: Callable[[tarfile.TarFile], None] = lambda tar: None  # adds what no honest worker would
        self.signed = True

    def pack(self, key: Path, out: Path) -> Path:
        """List the files in the manifest, sign it with `key`, and write everything to `out`."""
        out.write_bytes(gzip.compress(self.tar(key), 1, mtime=0))
        return out

    def tar(self, key: Path) -> bytes:
        lines = self.lines if self.lines is not None else [json.dumps(sample).encode() for sample in self.samples]
        files = {
            "samples.jsonl": b"".join(line + b"\n" for line in lines),
            "facts.json": json.dumps(self.facts).encode(),
            "limits.jsonl": b"".join(json.dumps(probe).encode() + b"\n" for probe in self.probes),
            **self.logs,
        }
        listed = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
        manifest = json.dumps({**self.manifest, "files": listed}).encode()
        files["manifest.json"] = manifest
        if self.signed:
            files["manifest.json.sig"] = signature_of(manifest, key)
        self.after_listing(files)
        return self._archive(files)

    def _archive(self, files: dict[str, bytes]) -> bytes:
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w") as tar:
            for path, content in files.items():
                member = tarfile.TarInfo(path)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            self.members(tar)
        return archive.getvalue()


def signature_of(manifest: bytes, key: Path) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "manifest.json"
        path.write_bytes(manifest)
        sign(path, key)
        return path.with_name("manifest.json.sig").read_bytes()


def _a_sample(plan: Plan, revision: str, planned: PlannedScenario, block: int, metric: Metric, value: float) -> Sample:
    return Sample(
        session=plan.session,
        block=block,
        round=0,
        attempt=plan.attempt,
        order=[build.revision for build in plan.builds].index(revision),
        revision=revision,
        scenario=planned.name,
        version=planned.version,
        metric=metric.name,
        unit=metric.unit,
        value=value,
        params=identifying_params(planned),
        hosts=SCENARIO_HOSTS.get(planned.name, {"host": plan.cluster.hosts[0].name}),
        warm_up=False,
        valid=True,
        void_reason=None,
        time=f"2026-01-01T00:{block:02d}:00+00:00",
    )


def _an_outcome(revision: str, planned: PlannedScenario, block: int) -> Outcome:
    return Outcome(
        revision,
        planned.name,
        planned.version,
        identifying_params(planned),
        block,
        0,
        "measured",
        None,
        None,
        ["it answered"],
    )


def _some_facts(plan: Plan) -> Facts:
    return Facts(
        declared={"cpu": "model 1", "kernel": "6.1", "qemu": "7.2", "libvirt": "9.0"},
        hosts={host.name: {"cores": 2} for host in plan.cluster.hosts},
        clock_bounds_s={host.name: 0.0001 for host in plan.cluster.hosts},
        guest_images={build.revision: digest_of(build.revision) for build in plan.builds},
        fidelity=FidelityFact("emulated", ["domain type qemu"]),
        load={"before": 0.5},
    )


def _some_probes(plan: Plan) -> list[Probe]:
    host = plan.cluster.hosts[0].name
    ends = (0, plan.blocks)
    disks = [Probe("disk write", host, None, 900.0 + block, block, "2026-01-01T00:00:00+00:00") for block in ends]
    return [*disks, Probe("network", "observer", "storage", 1500.0, 0, "2026-01-01T00:00:00+00:00")]


def _a_manifest(plan: Plan, outcomes: list[Outcome]) -> Manifest:
    return Manifest(
        schema=SCHEMA,
        session=plan.session,
        attempt=plan.attempt,
        plan=digest_of(plan),
        harness=plan.harness,
        cluster=plan.cluster.name,
        started="2026-01-01T00:00:00+00:00",
        finished="2026-01-01T00:30:00+00:00",
        fidelity="emulated",
        builds=tuple(ResolvedBuild(build.revision, "1" * 64, "2" * 64, {}) for build in plan.builds),
        outcomes=tuple(outcomes),
        files={},
    )
