"""Findings as sentences: what a check-in did, on which cluster, by how much, and how surely."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from farm.results.tables import Finding
from reports.judged import SIGNS, count_text
from reports.material import CheckInView, ClusterView, Material, plain
from reports.metrics import MeasuredMetric, interval_text

_TONES = {"slower": "worse", "broken": "worse", "faster": "better"}
_SEARCHES = {
    "measuring": "the commits inside it are being measured",
    "whole": "by none of the commits inside it alone",
    "undecided": "by which commit inside it cannot be told",
}
Entry = dict[str, Any]


@dataclass(frozen=True)
class FindingView:
    """One finding. Of kind product: check-in … `what` on `cluster` `evidence`.

    Of the other kinds no check-in is accused. Environment: since `session` the surroundings changed on `cluster`,
    `what`. Harness: on `cluster` the farm itself loses more of one check-in than of others, `what`.
    """

    key: str
    kind: str
    state: str
    cluster: ClusterView
    checkin: CheckInView
    last_good: CheckInView | None
    session: str | None
    tone: str
    what: str
    evidence: str
    detail: str
    culprits: tuple[CheckInView, ...]  # commits inside a merge that did it by themselves
    inside: str  # what else is known of the commits inside a merge
    fidelity: str
    found_at: datetime

    @property
    def sign(self) -> str:
        return SIGNS[self.tone] if self.tone != "plain" else f"{SIGNS['worse']}{SIGNS['better']}"

    @property
    def provisional(self) -> bool:
        return self.state != "confirmed"

    @property
    def product(self) -> bool:
        return self.kind == "product"

    @property
    def path(self) -> str:
        """Where the finding stands: at its check-in, or at its cluster."""
        return self.checkin.path if self.product else self.cluster.path

    @property
    def sentence(self) -> str:
        where = self.cluster.donor
        if self.kind == "environment":
            told = f"since session {self.session} the surroundings changed on {where}: {self.what} {self.evidence}"
        elif self.kind == "harness":
            told = f"the farm's own losses on {where} do not meet all check-ins alike: {self.what} {self.evidence}"
        else:
            told = f"check-in {self.checkin.short} «{self.checkin.subject}» {self.what} on {where} {self.evidence}"
            told += "".join(f", by {one.short} «{one.subject}» inside it" for one in self.culprits)
            told += f", {self.inside}" if self.inside else ""
        return told.strip() + (" (provisional)" if self.provisional else "")


def finding_views(material: Material) -> list[FindingView]:
    """All public findings, those of the newest check-ins first."""
    views = [view for row in material.findings if (view := _view(material, row))]
    return sorted(views, key=lambda view: (view.checkin.repository, -(view.checkin.number or 0), view.cluster.name))


def _view(material: Material, row: Finding) -> FindingView | None:
    checkin, cluster = material.revision(row.revision), material.clusters.get(row.cluster)
    session = next((str(entry["since"]) for entry in row.metrics if "since" in entry), None)
    if checkin is None or cluster is None or (session is not None and not material.has_session(session)):
        return None
    tone = _TONES.get(row.direction, "plain")
    what, evidence, detail = _told(row, tone, checkin)
    return FindingView(
        key=row.key,
        kind=row.kind,
        state=row.state,
        cluster=cluster,
        checkin=checkin,
        last_good=material.revision(row.last_good) if row.last_good else None,
        session=session,
        tone=tone,
        what=what,
        evidence=evidence,
        detail="; ".join(filter(None, (detail, *_culprits_told(material, row)))),
        culprits=tuple(filter(None, (material.revision(one["revision"]) for one in _inside(row)["commits"]))),
        inside=_inside_told(material, row),
        fidelity=material.fidelity_of(row.cluster),
        found_at=row.found_at,
    )


def _inside(row: Finding) -> Entry:
    """How far the search inside a merge is; of what is no merge, that there is none."""
    return row.inside or {"state": "", "commits": [], "together": []}


def _inside_told(material: Material, row: Finding) -> str:
    """What is known of the commits inside, beside those that did it by themselves."""
    found = _inside(row)
    told = [f"by {_stretch(material, revisions)} inside it together" for revisions in found["together"]]
    if found["state"] in _SEARCHES:
        told.append(_SEARCHES[found["state"]])
    return ", ".join(told)


def _stretch(material: Material, revisions: Sequence[str]) -> str:
    """Consecutive commits, of which the last at least was measured."""
    last = material.revision(revisions[-1])
    return f"the {len(revisions)} commits to {last.short if last else revisions[-1][:7]}"


def _culprits_told(material: Material, row: Finding) -> list[str]:
    """The evidence against each commit inside, against its own parent."""
    told = []
    for one in _inside(row)["commits"]:
        commit, entry = material.revision(one["revision"]), one["metrics"][0]
        if commit is None:
            continue
        metric, did = MeasuredMetric.of(entry), f"breaks it: {plain(str(entry.get('reason') or ''))}"
        if entry["ratio"]:
            did = f"{metric.change_words(entry['ratio'])} {interval_text(entry['ratio'], entry['low'], entry['high'])}"
        told.append(f"inside it {commit.short}: {metric.title} {did}")
    return told


def _told(row: Finding, tone: str, checkin: CheckInView) -> tuple[str, str, str]:
    if row.direction == "void":
        return _void(row, checkin)
    if row.direction == "rebuilt":
        return _rebuilt(row, checkin)
    return _break(row) if row.direction == "broken" else _change(row, tone)


def _void(row: Finding, checkin: CheckInView) -> tuple[str, str, str]:
    """What was lost of one check-in, or in one role, and of the others; and the first reason that was given."""
    entry = row.metrics[0]
    evidence = f"where the others lose {entry['others_lost']} of {entry['others']}"
    who = f"the role {plain(str(entry['role']))}" if entry.get("role") else f"check-in {checkin.short}"
    what = f"{who} loses {entry['lost']} of {count_text(entry['n'], 'deployment')}"
    return what, evidence, plain(str(entry["reason"] or ""))


def _rebuilt(row: Finding, checkin: CheckInView) -> tuple[str, str, str]:
    """How many revisions became other bits without a check-in, and what is different."""
    (entry,) = row.metrics
    others = f" and {count_text(entry['n'] - 1, 'other revision')}" if entry["n"] > 1 else ""
    what = f"{checkin.short}{others} became other bits than before, without a new check-in"
    return what, "", plain(str(entry["reason"]))


def _change(row: Finding, tone: str) -> tuple[str, str, str]:
    """What became how much slower or faster, the evidence, and which other metrics moved with it."""
    metric, entry, others = _head(row.metrics, tone)
    change = f"{metric.group} {metric.change_words(entry['ratio'])}"
    what = f"the canary's {change}" if row.kind == "environment" else f"made {change}"
    n = count_text(entry["n"], entry["replication"])
    evidence = f"{interval_text(entry['ratio'], entry['low'], entry['high'])}, {n}".lstrip(", ")
    told = [metric.short_title, *(f"{other.title} {other.change_words(item['ratio'])}" for other, item in others)]
    if entry.get("changed"):
        facts = (f"{name} {old or 'none'} → {new or 'none'}" for name, (old, new) in entry["changed"].items())
        told.append(f"facts that changed: {', '.join(map(plain, facts))}")
    return what, evidence, "; ".join(told)


def _break(row: Finding) -> tuple[str, str, str]:
    """What no longer works, in how many sessions that was seen, and the first reason that was given."""
    broken = [entry for entry in row.metrics if entry["ratio"] is None]
    groups = dict.fromkeys(MeasuredMetric.of(entry).group for entry in broken)
    sessions = max(entry["n"] for entry in broken)
    reason = plain(str(broken[0].get("reason") or ""))
    return f"broke {', '.join(groups)}", f"in {count_text(sessions, 'session')}", reason


def _head(entries: Sequence[Entry], tone: str) -> tuple[MeasuredMetric, Entry, list[tuple[MeasuredMetric, Entry]]]:
    """The metric that the sentence names: one that tells the direction, a wall time, the largest such change."""

    def weight(item: tuple[MeasuredMetric, Entry]) -> tuple[bool, bool, float]:
        metric, entry = item
        size = max(entry["ratio"], 1 / entry["ratio"])
        return metric.tone(entry["ratio"]) == tone, not metric.metric.endswith("cpu_s"), size

    measured = [(MeasuredMetric.of(entry), entry) for entry in entries if entry["ratio"]]
    first, *others = sorted(measured, key=weight, reverse=True)
    return *first, others
