"""A page per session: its plan, the order in which builds ran, its locks and facts, its bundle and every sample."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from farm.results.tables import Bundle, Session
from reports.builds import Deployed, bits_told, builds_of, deployed
from reports.changes import changes
from reports.limits import beyond_limit, probe_table
from reports.material import Material, plain
from reports.metrics import MeasuredMetric, number_text
from reports.pages import Page
from reports.pages.revisions import count_outcomes
from reports.stand_ins import stand_ins
from reports.voids import void_counts


def session_pages(material: Material, bundle_files: dict[str, list[str]]) -> Iterator[Page]:
    """`bundle_files`: session → the names of its bundle's files as they stand in the site."""
    rows = [
        {"session": session, "cluster": material.clusters[session.cluster]} for session in reversed(material.sessions)
    ]
    yield Page("sessions/index.html", "sessions.html.j2", "sessions/index.html", {"rows": rows})
    everywhere = deployed(material)
    for session in material.sessions:
        content = _content(material, session, bundle_files.get(session.id, []), everywhere)
        yield Page(material.session_path(session.id), "session.html.j2", "sessions/index.html", content)


def _content(
    material: Material, session: Session, files: list[str], everywhere: Mapping[tuple[str, str], list[Deployed]]
) -> dict[str, Any]:
    bundle = material.answered.get(session.id)
    samples = material.samples[material.samples["session"] == session.id]
    plan = session.plan or {}
    return {
        "session": session,
        "cluster": material.clusters[session.cluster],
        "subject": material.revision(session.revision),
        "builds": [
            {"checkin": material.revision(build["revision"]), "roles": ", ".join(build["roles"])}
            for build in session.builds
        ],
        "scenarios": plan.get("scenarios", []),
        "seed": plan.get("seed"),
        "deadline_s": plan.get("deadline_s"),
        "harness": plan.get("harness"),
        "order": _order(material, samples),
        "locks": _locks(material, session, everywhere),
        "stand_ins": stand_ins([bundle] if bundle else []),
        "declared": {plain(str(key)): plain(str(value)) for key, value in _facts(bundle, "declared").items()},
        "clocks": clocks_told(_facts(bundle, "clock_bounds_s"), _facts(bundle, "clock_jumps_s")),
        "load": load_told(_facts(bundle, "load")),
        "host_facts": {
            plain(host): {plain(str(name)): plain(str(value)) for name, value in facts.items()}
            for host, facts in _facts(bundle, "hosts").items()
        },
        "packages": {
            plain(str(digest)): [plain(str(package)) for package in _sequence(packages)]
            for digest, packages in _facts(bundle, "packages").items()
        },
        "operator_image": {
            plain(str(key)): plain(str(value)) for key, value in _facts(bundle, "operator_image").items()
        },
        "fidelity_evidence": [plain(str(line)) for line in _facts(bundle, "fidelity").get("evidence", [])],
        "probes": probe_table(row for row in material.probes if row.session == session.id),
        "voids": void_counts(samples),
        "beyond": beyond_limit(samples),
        "changes": _changes(material, session, bundle),
        "outcomes": count_outcomes([row for row in material.outcomes if row.session == session.id]),
        "bundle": bundle,
        "rejected": [item for item in material.bundles if item.session == session.id and not item.accepted],
        "files": [{"name": name, "path": f"data/bundles/{session.id}/{name}"} for name in files],
        "samples": [_sample(material, row) for row in samples.to_dict("records")],
    }


def clocks_told(bounds_s: Mapping[str, Any], jumps_s: Mapping[str, Any]) -> dict[str, str]:
    """By host, how sure its clock is against the observer's, and whether it stayed where it was."""
    told = {}
    for host, bound_s in bounds_s.items():
        jumps = ", ".join(f"{number_text(jump_s * 1e3)} ms" for jump_s in jumps_s.get(host, ()))
        kept = f"jumped by {jumps}: what the host took part in is void" if jumps else "kept to it"
        told[f"clock of {plain(host)}"] = f"within {number_text(bound_s * 1e3)} ms of the observer's, {kept}"
    return told


def load_told(load: Mapping[str, Any]) -> dict[str, str]:
    """The machine's load averages before and after, and where the session's time went, as people read them.

    What a worker wrote there need not be what it should be: anything else is left out.
    """
    told = {}
    for when in ("before", "after"):
        averages = [value for value in _sequence(load.get(when)) if isinstance(value, int | float)]
        told[f"load {when} (1, 5, 15 minutes)"] = " ".join(f"{value:.2f}" for value in averages)
    told["time spent"] = _seconds_told(load.get("spent_s"))
    told["CPU time, machine and the farm's own"] = _seconds_told(load.get("cpu_s"))
    return {name: text for name, text in told.items() if text}


def _seconds_told(seconds: object) -> str:
    named = sorted(seconds.items()) if isinstance(seconds, dict) else []
    return ", ".join(f"{plain(name)} {value:.1f} s" for name, value in named if isinstance(value, int | float))


def _sequence(value: object) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def _changes(material: Material, session: Session, bundle: Bundle | None) -> list[str] | None:
    """What the hosts' facts say that changed since the session before on this cluster; None where there is none."""
    measured = material.measured_on(session.cluster)
    if bundle is None or session == measured[0]:
        return None
    before = material.answered[measured[measured.index(session) - 1].id]
    return [plain(line) for line in changes(_facts(before, "hosts"), _facts(bundle, "hosts"))]


def _order(material: Material, samples: Any) -> list[dict[str, Any]]:
    """Per block, the builds in the order in which they were deployed."""
    seen = samples[["block", "order", "revision"]].drop_duplicates().sort_values(["block", "order"])
    return [
        {"block": block, "checkins": [material.revision(revision) for revision in group["revision"].drop_duplicates()]}
        for block, group in seen.groupby("block")
    ]


def _locks(
    material: Material, session: Session, everywhere: Mapping[tuple[str, str], list[Deployed]]
) -> list[dict[str, Any]]:
    donor = material.clusters[session.cluster].donor
    return [
        {
            "checkin": material.revision(build.revision),
            "lock": build.lock,
            "code": build.code,
            "digest": build.digest,
            "platform": plain(build.platform),
            "bits": bits_told(Deployed(session.id, donor, build), everywhere[build.revision, build.platform]),
            "settings": json.dumps(build.settings, indent=1, sort_keys=True),
        }
        for build in builds_of(material, session.id)
        if material.revision(build.revision)
    ]


def _facts(bundle: Bundle | None, part: str) -> dict[str, Any]:
    found = ((bundle.facts or {}).get(part) or {}) if bundle else {}
    return dict(sorted(found.items()))


def _sample(material: Material, row: dict[Any, Any]) -> dict[str, Any]:
    metric = MeasuredMetric.of_record(row)
    hosts = ", ".join(f"{role} {host}" for role, host in sorted(json.loads(row["hosts"]).items()))
    return {**row, "metric": metric, "checkin": material.revision(row["revision"]), "hosts": hosts}
