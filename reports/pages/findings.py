"""Findings as sentences: what a check-in did, on which cluster, by how much, and how surely."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from farm.results.tables import Finding
from reports.judged import SIGNS, count_text
from reports.material import CheckInView, ClusterView, Material
from reports.metrics import MeasuredMetric, interval_text


@dataclass(frozen=True)
class FindingView:
    """One finding; the sentence is: check-in … `verb` `what` on `cluster` `evidence`."""

    key: str
    checkin: CheckInView
    cluster: ClusterView
    last_good: CheckInView | None
    kind: str
    state: str
    tone: str
    verb: str
    what: str
    evidence: str
    detail: str
    fidelity: str
    found_at: datetime

    @property
    def sign(self) -> str:
        return SIGNS[self.tone]

    @property
    def provisional(self) -> bool:
        return self.state != "confirmed"

    @property
    def sentence(self) -> str:
        did = f"{self.verb} {self.what}".strip()
        told = f"check-in {self.checkin.short} «{self.checkin.subject}» {did} on {self.cluster.donor} {self.evidence}"
        return told.strip() + (" (provisional)" if self.provisional else "")


def finding_views(material: Material) -> list[FindingView]:
    """All public findings, newest check-in first."""
    views = [view for row in material.findings if (view := _view(material, row))]
    return sorted(views, key=lambda view: (view.checkin.repository, -(view.checkin.number or 0), view.cluster.name))


def _view(material: Material, row: Finding) -> FindingView | None:
    checkin, cluster = material.revision(row.revision), material.clusters.get(row.cluster)
    if checkin is None or cluster is None:
        return None
    measured = [(MeasuredMetric.of(entry), entry) for entry in row.metrics if entry.get("ratio")]
    verb, what, evidence, detail, tone = _words(row, measured)
    fidelity = material.fidelity_of(row.cluster)
    last_good = material.revision(row.last_good) if row.last_good else None
    return FindingView(
        row.key,
        checkin,
        cluster,
        last_good,
        row.kind,
        row.state,
        tone,
        verb,
        what,
        evidence,
        detail,
        fidelity,
        row.found_at,
    )


def _words(row: Finding, measured: list[tuple[MeasuredMetric, dict[str, Any]]]) -> tuple[str, str, str, str, str]:
    """verb, what, evidence, detail, tone."""
    if not measured:
        groups = sorted({MeasuredMetric.of({"unit": "", **entry}).group for entry in row.metrics})
        tone = "better" if row.direction == "faster" else "worse"
        return ("broke" if tone == "worse" else "mended", ", ".join(groups) or "it", "", "", tone)
    tone = {"slower": "worse", "faster": "better"}.get(row.direction, "plain")
    head, others = _head(measured, tone)
    metric, entry = head
    verb = "made" if row.kind == "product" else "came with a change of the surroundings:"
    what = f"{metric.group} {metric.change_words(entry['ratio'])}"
    n = count_text(entry["n"], entry["replication"])
    evidence = f"{interval_text(entry['ratio'], entry['low'], entry['high'])}, {n}".lstrip(", ")
    detail = "; ".join(
        [metric.short_title, *(f"{other.title} {other.change_words(item['ratio'])}" for other, item in others)]
    )
    return verb, what, evidence, detail, tone


def _head(
    measured: list[tuple[MeasuredMetric, dict[str, Any]]], tone: str
) -> tuple[tuple[MeasuredMetric, dict[str, Any]], list[tuple[MeasuredMetric, dict[str, Any]]]]:
    """The metric that the sentence names: a wall time that tells the finding's direction, the largest such change."""

    def weight(item: tuple[MeasuredMetric, dict[str, Any]]) -> tuple[bool, bool, float]:
        metric, entry = item
        size = max(entry["ratio"], 1 / entry["ratio"])
        return metric.tone(entry["ratio"]) == tone, not metric.metric.endswith("cpu_s"), size

    ordered = sorted(measured, key=weight, reverse=True)
    return ordered[0], ordered[1:]
