"""Two clusters beside each other: ratio, interval and verdict for the same build, and all that differs between them."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from markupsafe import Markup

from farm.analysis.limits import Limit
from farm.analysis.rules import BLOCKS_NEEDED, SESSIONS_NEEDED
from farm.verdicts import DECLARED_NOT_JUDGED
from reports.charts import ratio_chart
from reports.judged import DIFFERENT, Judged, count_text, verdict_counts
from reports.material import CheckInView, ClusterView, Figure, Material
from reports.metrics import interval_text, ratio_text
from reports.pages import Page


@dataclass(frozen=True)
class Side:
    """What a ratio has of one cluster: the geometric mean over the matched sessions, and its share of the limit."""

    value: float
    share: float | None


@dataclass(frozen=True)
class ClusterRow:
    """One metric of one build on both clusters; `sides` by cluster."""

    judged: Judged
    sides: dict[str, Side]
    verdict_text: str


@dataclass(frozen=True)
class BuildComparison:
    """One build on two clusters. `headline` says in one sentence what came out."""

    checkin: CheckInView
    between: str
    rows: list[ClusterRow]
    headline: str
    judged: bool
    same_fidelity: bool

    def chart(self) -> Markup | None:
        """Every ratio that may be judged, with its interval; none across fidelities, where nothing is ranked."""
        judged = [row.judged for row in self.rows if row.judged.metric.may_be_judged]
        bars = tuple(bar for item in judged if (bar := item.bar(item.metric.title)))
        if not bars or not self.same_fidelity:
            return None
        names = self.rows[0].judged.row
        key = f"pair-{names.cluster}-{names.other_cluster}-{self.checkin.revision[:12]}"
        described = f"{len(bars)} ratios with 95 % intervals; the table has the numbers"
        return ratio_chart(key, bars, f"{self.between}, revision {self.checkin.short}", described)


@dataclass(frozen=True)
class ClusterPair:
    left: ClusterView
    right: ClusterView
    builds: list[BuildComparison]

    @property
    def path(self) -> str:
        return f"compare/{self.left.name}..{self.right.name}.html"

    @property
    def shown(self) -> BuildComparison | None:
        """The newest build that was judged, or else the newest there is."""
        return next((build for build in self.builds if build.judged), self.builds[0] if self.builds else None)


def cluster_pairs(material: Material) -> list[ClusterPair]:
    """Every two clusters, with their builds newest first."""
    names = list(material.clusters)
    return [_pair(material, left, right) for left, right in combinations(names, 2)]


def comparison_pages(material: Material) -> Iterator[Page]:
    pairs = cluster_pairs(material)
    yield Page("compare/index.html", "compare_index.html.j2", "compare/index.html", {"pairs": pairs})
    for pair in pairs:
        content = {
            "pair": pair,
            "differs": _differences(material, pair),
            "segments": [
                words for name in (pair.left.name, pair.right.name) if (words := segments_sentence(material, name))
            ],
            "same_fidelity": material.fidelity_of(pair.left.name) == material.fidelity_of(pair.right.name),
        }
        yield Page(pair.path, "compare.html.j2", "compare/index.html", content)


def segments_sentence(material: Material, cluster: str) -> str | None:
    """In words, whether parallel segments are faster on this cluster, from its newest check-in that tells.

    Before one was measured often enough, no more than how far that is.
    """
    figures = [
        figure
        for figure in material.figures
        if figure.cluster == cluster and figure.metric.metric == "speedup" and figure.n
    ]
    if not figures:
        return None
    newest = max(figures, key=lambda figure: (_tells(figure), figure.checkin.number or 0))
    rests_on = f"{count_text(newest.n, 'block')} in {count_text(newest.sessions, 'session')}, {newest.fidelity}"
    rests_on += f", revision {newest.short}"
    donor = material.clusters[cluster].donor
    if not _tells(newest):
        needed = f"it takes {BLOCKS_NEEDED} blocks in {SESSIONS_NEEDED} sessions"
        question = f"Whether uploading segments in parallel is faster than one PUT on {donor}"
        return f"{question} is not judged yet: {needed}, and the newest has {rests_on}."
    subject = f"On {donor}, uploading segments in parallel is"
    interval = interval_text(1.0, newest.low, newest.high)
    evidence = f"(speed-up {ratio_text(newest.value)}× {interval}, {rests_on})"
    if newest.low is not None and newest.low > 1:
        return f"{subject} {ratio_text(newest.value)} times as fast as one PUT {evidence}."
    if newest.high is not None and newest.high < 1:
        return f"{subject} not faster here: it is slower than one PUT {evidence}."
    return f"{subject} not shown to be faster than one PUT here {evidence}."


def _tells(figure: Figure) -> bool:
    """Whether it was measured as often as a judgement needs."""
    return figure.low is not None and figure.n >= BLOCKS_NEEDED and figure.sessions >= SESSIONS_NEEDED


def _pair(material: Material, left: str, right: str) -> ClusterPair:
    found: dict[str, list[Judged]] = {}
    for item in material.judged:
        if item.row.between == "clusters" and {item.row.cluster, item.row.other_cluster} == {left, right}:
            found.setdefault(item.row.revision, []).append(item)
    builds = []
    for checkin in material.revisions:
        if checkin.revision in found and checkin.revision not in material.twins:
            builds.append(_build(material, checkin, found[checkin.revision]))
    return ClusterPair(material.clusters[left], material.clusters[right], builds)


def _build(material: Material, checkin: CheckInView, found: list[Judged]) -> BuildComparison:
    weightiest = {item.metric: item for item in sorted(found, key=lambda item: item.weight)}
    rows = [_row(material, item) for _, item in sorted(weightiest.items())]
    first, other = found[0].row.cluster, str(found[0].row.other_cluster)
    return BuildComparison(
        checkin,
        f"{material.clusters[first].donor} ÷ {material.clusters[other].donor}",
        rows,
        _headline(rows),
        any(not row.judged.provisional for row in rows),
        material.fidelity_of(first) == material.fidelity_of(other),
    )


def _row(material: Material, item: Judged) -> ClusterRow:
    levels = {item.row.cluster: item.row.level, str(item.row.other_cluster): item.row.other_level}
    sides = {
        cluster: Side(level, _share(material, item, cluster, level))
        for cluster, level in levels.items()
        if level is not None
    }
    return ClusterRow(item, sides, _verdict_words(material, item))


def _share(material: Material, item: Judged, cluster: str, level: float) -> float | None:
    figure = material.figure(item.metric, cluster, item.row.revision)
    if figure is None or figure.reached is None:
        return None
    return Limit(figure.reached.limit, item.metric.direction, figure.reached.why).share(level)


def _verdict_words(material: Material, item: Judged) -> str:
    """Says which is slower, but never across fidelities, and never says "equal"."""
    if material.fidelity_of(item.row.cluster) != material.fidelity_of(str(item.row.other_cluster)):
        return "not ranked: the fidelity differs"
    if item.verdict != DIFFERENT or item.ratio is None:
        return item.verdict_text
    donor = material.clusters[item.row.cluster].donor
    below = ", below δ" if item.below_delta else ""
    return f"different: {donor} {item.metric.change_words(item.ratio)}{below}"


def _headline(rows: list[ClusterRow]) -> str:
    judged = [row.judged for row in rows if row.judged.metric.may_be_judged]
    more = (
        f"; {len(rows) - len(judged)} more {'is' if len(rows) - len(judged) == 1 else 'are'} {DECLARED_NOT_JUDGED}"
        if len(rows) > len(judged)
        else ""
    )
    return f"Of {len(judged)} metrics: {verdict_counts(judged)}{more}."


def _differences(material: Material, pair: ClusterPair) -> list[dict[str, Any]]:
    """Everything that is known to differ, and for completeness what is the same, side by side."""
    left, right = (_known_facts(material, view) for view in (pair.left, pair.right))
    names = dict.fromkeys([*left, *right])
    return [
        {
            "name": name,
            "left": left.get(name, "–"),
            "right": right.get(name, "–"),
            "same": left.get(name) == right.get(name),
        }
        for name in names
    ]


def _known_facts(material: Material, view: ClusterView) -> dict[str, str]:
    cluster = view.inventory
    facts = {
        "driver": cluster.driver,
        "hosts": str(len(cluster.host)),
        "zones": ", ".join(host.zone for host in cluster.host),
        "object store": f"{cluster.storage.disks} disks of {cluster.storage.disk_mib} MiB",
        "physical machine": cluster.machine or "its own",
        "fidelity": material.fidelity_of(view.name),
    }
    return {**facts, **material.declared_facts(view.name)}
