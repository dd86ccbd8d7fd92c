"""A page per metric: its level over check-ins on every cluster, as a chart and as the table behind it."""

from collections.abc import Iterator
from typing import Any

from reports.charts import Line, Point, series_chart
from reports.limits import beyond_limit
from reports.material import CheckInView, Figure, Material
from reports.metrics import MeasuredMetric
from reports.noise import NoisePlace
from reports.pages import Page
from reports.pages.comparison import segments_sentence
from reports.pages.noise import unfit
from reports.summaries import block_values


def metric_pages(material: Material) -> Iterator[Page]:
    always = [metric for metric in material.metrics if metric not in material.only_swept]
    content = {
        "groups": _by_group(always),
        "swept": _by_group(sorted(material.only_swept)),
        "newest": {metric: _newest(material, metric) for metric in always},
    }
    yield Page("metrics/index.html", "metrics.html.j2", "metrics/index.html", content)
    for metric in material.metrics:
        yield Page(metric.path, "metric.html.j2", "metrics/index.html", _content(material, metric))


def _by_group(metrics: list[MeasuredMetric]) -> dict[str, list[MeasuredMetric]]:
    groups: dict[str, list[MeasuredMetric]] = {}
    for metric in metrics:
        groups.setdefault(metric.group, []).append(metric)
    return groups


def _newest(material: Material, metric: MeasuredMetric) -> list[Figure | None]:
    """Per cluster, the figure of the newest check-in that has one."""
    found: list[Figure | None] = []
    for cluster in material.clusters:
        figures = [figure for figure in material.figures_of(metric) if figure.cluster == cluster and figure.n]
        found.append(max(figures, key=lambda figure: figure.checkin.number or 0, default=None))
    return found


def _content(material: Material, metric: MeasuredMetric) -> dict[str, Any]:
    figures = [figure for figure in material.figures_of(metric) if figure.checkin.revision not in material.twins]
    segments = []
    if metric.scenario == "chunked_upload":
        segments = [words for name in material.clusters if (words := segments_sentence(material, name))]
    return {
        "metric": metric,
        "repositories": [
            _repository(material, metric, repository, figures)
            for repository in sorted({figure.checkin.repository for figure in figures})
        ],
        "segments": segments,
        "limits": sorted({figure.reached.why for figure in figures if figure.reached}),
        "unlimited": sorted({figure.no_limit for figure in figures if figure.no_limit}),
        "beyond": beyond_limit(material.samples_of(metric)),
        "csv": f"data/metrics/{metric.slug}.csv",
    }


def _repository(material: Material, metric: MeasuredMetric, repository: str, figures: list[Figure]) -> dict[str, Any]:
    mine = [figure for figure in figures if figure.checkin.repository == repository]
    order = _in_order({figure.checkin.revision: figure.checkin for figure in mine})
    lines = tuple(
        Line(view.donor, _points(material, metric, [figure for figure in mine if figure.cluster == name], order))
        for name, view in material.clusters.items()
    )
    labels = tuple(checkin.short for checkin in order)
    title = f"{metric.title}, {metric.unit_text}, {repository}"
    described = f"{len(labels)} check-ins from {labels[0]} to {labels[-1]}; the table below has the numbers."
    return {
        "name": repository,
        "chart": series_chart(f"c-{metric.slug}-{repository}", lines, labels, metric.unit_text, title, described),
        "rows": [
            {
                "checkin": checkin,
                "cells": [_cell(material, metric, name, checkin) for name in material.clusters],
            }
            for checkin in reversed(order)
        ],
    }


def _in_order(checkins: dict[str, CheckInView]) -> list[CheckInView]:
    """Oldest first; builds that are no check-ins of their branch at the end."""
    return sorted(checkins.values(), key=lambda item: (item.number is None, item.number or 0, item.revision))


def _points(
    material: Material, metric: MeasuredMetric, figures: list[Figure], order: list[CheckInView]
) -> tuple[Point, ...]:
    place = {checkin.revision: index for index, checkin in enumerate(order)}
    samples = material.samples_of(metric)
    samples = samples[samples["cluster"] == figures[0].cluster] if figures else samples[:0]
    blocks = block_values(samples).groupby("revision")["value"].agg(tuple)
    void = samples[~samples["valid"]].groupby("revision")["value"].agg(tuple)
    return tuple(
        Point(
            place[figure.checkin.revision],
            figure.value if figure.n else float("nan"),
            figure.low,
            figure.high,
            blocks.get(figure.checkin.revision, ()),
            void.get(figure.checkin.revision, ()),
        )
        for figure in sorted(figures, key=lambda figure: place[figure.checkin.revision])
    )


def _cell(material: Material, metric: MeasuredMetric, cluster: str, checkin: CheckInView) -> dict[str, Any]:
    return {
        "figure": material.figure(metric, cluster, checkin.revision),
        "judged": material.judged_at(metric, cluster, checkin.revision),
        "unfit": unfit(material, NoisePlace(checkin.repository, cluster, metric)),
    }
