"""A page per sweep: how a metric answers to the parameters that the sweep varies, on every cluster."""

from collections.abc import Iterator, Mapping
from typing import Any

from farm.results.tables import OutcomeRow, Session
from reports.charts import Line, Point, series_chart
from reports.material import CheckInView, ClusterView, Figure, Material
from reports.metrics import MeasuredMetric
from reports.pages import Page
from reports.pages.revisions import count_outcomes
from scenarios import sweeps
from scenarios.crossing import canonical_json
from scenarios.registry import identifying_params
from scenarios.sweeps import Sweep


def sweep_pages(material: Material) -> Iterator[Page]:
    listed = []
    for name in sweeps.names():
        sweep = sweeps.load(name)
        sessions = material.sweeps_of(sweep.cells)
        figures = material.figures_of_sessions(sessions)
        parts = [
            _repository(material, name, sweep, repository, sessions, figures) for repository in _repositories(figures)
        ]
        path = f"sweeps/{name}.html"
        listed.append({"name": name, "sweep": sweep, "path": path, "parts": parts})
        if parts:
            content = {"name": name, "sweep": sweep, "parts": parts}
            yield Page(path, "sweep.html.j2", "sweeps/index.html", content)
    yield Page("sweeps/index.html", "sweeps.html.j2", "sweeps/index.html", {"rows": listed})


def _repositories(figures: list[Figure]) -> list[str]:
    return sorted({figure.checkin.repository for figure in figures})


def _repository(
    material: Material, name: str, sweep: Sweep, repository: str, sessions: list[Session], figures: list[Figure]
) -> dict[str, Any]:
    """The newest check-in that was swept."""
    mine = [figure for figure in figures if figure.checkin.repository == repository]
    newest = max((figure.checkin for figure in mine), key=lambda checkin: (checkin.number or 0, checkin.revision))
    of_newest = [figure for figure in mine if figure.checkin == newest]
    theirs = {session.id for session in sessions}
    missing = [
        row
        for row in material.outcomes
        if row.session in theirs and row.revision == newest.revision and row.outcome != "measured"
    ]
    metrics: dict[MeasuredMetric, list[Figure]] = {}
    for figure in of_newest:
        metrics.setdefault(_unasked(figure.metric), []).append(figure)
    asked = {session.cluster for session in sessions}
    views = {cluster: view for cluster, view in material.clusters.items() if cluster in asked}
    rows = [_metric(views, name, sweep, newest, metric, found, missing) for metric, found in sorted(metrics.items())]
    return {
        "repository": repository,
        "checkin": newest,
        "views": views.values(),
        "metrics": rows,
        "missing": count_outcomes(missing),
    }


def _unasked(metric: MeasuredMetric) -> MeasuredMetric:
    """The metric without what the sweep asked for: the same for all its combinations."""
    rest = tuple((name, value) for name, value in metric.params if name not in metric.asked)
    return MeasuredMetric(metric.scenario, metric.version, metric.metric, rest, metric.unit)


def _metric(
    views: Mapping[str, ClusterView],
    name: str,
    sweep: Sweep,
    checkin: CheckInView,
    metric: MeasuredMetric,
    figures: list[Figure],
    missing: list[OutcomeRow],
) -> dict[str, Any]:
    asked = [identifying_params(cell) for cell in sweep.cells]
    labels = tuple(", ".join(str(cell.params[axis]) for axis in sweep.axis) for cell in sweep.cells)
    at = {(asked.index(figure.metric.asked), figure.cluster): figure for figure in figures}
    instead = {(canonical_json(row.params), row.cluster): row.outcome for row in missing}
    lines = tuple(
        Line(
            view.donor,
            tuple(_point(place, at[place, cluster]) for place in range(len(asked)) if (place, cluster) in at),
        )
        for cluster, view in views.items()
    )
    axes = ", ".join(axis.replace("_", " ") for axis in sweep.axis)
    title = f"{metric.title}, {metric.unit_text}, against {axes}"
    described = f"{len(labels)} combinations; the table below has the numbers."
    judged = metric.declared is not None and metric.declared.judged
    key = f"s-{name}-{metric.slug}-{checkin.repository}"
    return {
        "metric": metric,
        "axes": axes,
        "chart": series_chart(key, lines, labels, metric.unit_text, title, described) if judged else None,
        "rows": [
            {
                "label": label,
                "figures": [
                    (
                        at.get((place, cluster)),
                        instead.get((canonical_json({**asked[place], **dict(metric.params)}), cluster)),
                    )
                    for cluster in views
                ],
            }
            for place, label in enumerate(labels)
        ],
    }


def _point(place: int, figure: Figure) -> Point:
    return Point(place, figure.value if figure.n else float("nan"), figure.low, figure.high, (), ())
