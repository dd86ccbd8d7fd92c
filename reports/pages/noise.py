"""The page of noise: how small a change each metric can show on each cluster, and which are not fit to judge."""

from typing import Any

from farm.analysis.noise import Noise
from farm.verdicts import DECLARED_NOT_JUDGED
from reports.material import ClusterView, Material
from reports.noise import NoisePlace
from reports.pages import Page
from scenarios.contract import Metric


def noise_page(material: Material) -> Page:
    clusters = [{"view": view, "tables": _tables(material, view)} for view in material.clusters.values()]
    return Page("noise.html", "noise.html.j2", "noise.html", {"clusters": clusters})


def unfit(material: Material, place: NoisePlace) -> Noise | None:
    """The noise of a judged metric that is known to be too large for its δ."""
    noise, declared = material.noise.get(place), place.metric.declared
    if noise is None or declared is None or not declared.judged:
        return None
    return noise if noise.fit(declared.delta) is False else None


def _tables(material: Material, view: ClusterView) -> list[dict[str, Any]]:
    """One per repository, its metrics by scenario."""
    mine = {place: noise for place, noise in material.noise.items() if place.cluster == view.name}
    return [
        {
            "repository": repository,
            "rows": [_row(place, noise) for place, noise in mine.items() if place.repository == repository],
        }
        for repository in dict.fromkeys(place.repository for place in mine)
    ]


def _row(place: NoisePlace, noise: Noise) -> dict[str, Any]:
    declared = place.metric.declared
    assert declared is not None  # `noises` tells of no others
    return {"metric": place.metric, "noise": noise, "delta": declared.delta, "fit": _fit(noise, declared)}


def _fit(noise: Noise, declared: Metric) -> str:
    """In words, whether a change of δ is found."""
    if not declared.judged:
        return DECLARED_NOT_JUDGED
    return {True: "fit", False: "not fit to judge", None: "too little measured to say"}[noise.fit(declared.delta)]
