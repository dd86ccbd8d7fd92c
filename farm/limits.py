"""Samples beside the limits of their hosts, and void where a whole session claims more than is possible.

Nothing is rewritten: limits are those of all that was probed in the epoch so far, so a session may be void by what
is known today and count again by what is known tomorrow.
"""

import json
import math
from collections.abc import Iterable, Mapping
from statistics import median
from typing import Any, NamedTuple

import pandas as pd
from sqlalchemy import Engine

from farm.analysis.bounds import limit_of
from farm.analysis.limits import Circumstances, Limit, Place, best_of, count_of
from farm.analysis.rules import BEYOND_LIMIT
from farm.results import queries
from farm.results.queries import Scope
from farm.results.tables import Bundle, ProbeRow
from scenarios.registry import SCENARIOS


class _Cell(NamedTuple):
    """Samples that share their circumstances."""

    session: str
    revision: str
    cluster: str
    epoch: str
    scenario: str
    version: int
    params: str
    hosts: str


class _Asked(NamedTuple):
    """One metric of a whole session, whatever the revision and the hosts: void or not as one."""

    session: str
    scenario: str
    version: int
    metric: str
    params: str


def held_samples(
    engine: Engine, scope: Scope, *, metric: str | None = None, revision: str | None = None, **wanted: str | None
) -> pd.DataFrame:
    """Samples as `queries.samples` gives them, with `limit`, `share`, `limit_why` and `beyond_limit`.

    `limit_why` is what the limit is made of, or why there is none; samples beyond the possible are void. A sample's
    limit comes from the others of its session, so those are read whichever are wanted.
    """
    samples = queries.samples(engine, scope, **wanted)
    held = hold(samples, queries.probes(engine, scope), queries.bundles(engine, scope))
    for column, value in (("metric", metric), ("revision", revision)):
        if value is not None:
            held = held[held[column] == value]
    return held


def hold(samples: pd.DataFrame, probes: Iterable[ProbeRow], bundles: Iterable[Bundle]) -> pd.DataFrame:
    """The frame with its limits; `bundles` are those that brought the samples."""
    limits = _limits(samples, probes, {row.session: row for row in bundles if row.accepted and row.session})
    values = zip(limits, samples["value"].tolist(), strict=True)
    held = samples.assign(
        limit=[limit.value if isinstance(limit, Limit) else math.nan for limit in limits],
        share=[limit.share(value) if isinstance(limit, Limit) else math.nan for limit, value in values],
        limit_why=[limit.why if isinstance(limit, Limit) else limit for limit in limits],
    )
    reasons = _beyond(held)
    if not reasons:
        return held.assign(beyond_limit=False)
    beyond = [reasons.get(asked) for asked in map(_Asked, *_columns(held, *_Asked._fields))]
    rows = zip(beyond, *_columns(held, "valid", "void_reason"), strict=True)
    states = [(False, reason) if reason and valid else (valid, old) for reason, valid, old in rows]
    return held.assign(
        valid=[valid for valid, _ in states],
        void_reason=[reason for _, reason in states],
        beyond_limit=[reason is not None for reason in beyond],
    )


def best_by_epoch(probes: Iterable[ProbeRow]) -> dict[tuple[str, str], dict[Place, float]]:
    """Per cluster and epoch the best of everything that was probed."""
    found: dict[tuple[str, str], list[tuple[Place, float]]] = {}
    for row in probes:
        found.setdefault((row.cluster, row.epoch), []).append(((row.kind, row.at, row.to), row.value))
    return {key: best_of(values) for key, values in found.items()}


def _limits(samples: pd.DataFrame, probes: Iterable[ProbeRow], bundles: Mapping[str, Bundle]) -> list[Limit | str]:
    """One for each row, or why it has none."""
    best = best_by_epoch(probes)
    cells = list(map(_Cell, *_columns(samples, *_Cell._fields))) if len(samples) else []
    beside = _medians(samples, cells)
    circumstances = {cell: _circumstances(cell, beside[cell], best, bundles.get(cell.session)) for cell in beside}
    known: dict[tuple[_Cell, str], Limit | str] = {}
    for cell, metric in zip(cells, samples["metric"].tolist(), strict=True):
        if (cell, metric) not in known:
            known[cell, metric] = limit_of(cell.scenario, metric, circumstances[cell])
    return [known[key] for key in zip(cells, samples["metric"].tolist(), strict=True)]


def _medians(samples: pd.DataFrame, cells: list[_Cell]) -> dict[_Cell, dict[str, float]]:
    """Per cell the median of each metric's valid samples."""
    values: dict[_Cell, dict[str, list[float]]] = {}
    columns = _columns(samples, "metric", "value", "valid")
    for cell, metric, value, valid in zip(cells, *columns, strict=True):
        its = values.setdefault(cell, {})
        if valid:
            its.setdefault(metric, []).append(value)
    return {cell: {metric: median(found) for metric, found in its.items()} for cell, its in values.items()}


def _circumstances(
    cell: _Cell,
    beside: Mapping[str, float],
    best: Mapping[tuple[str, str], Mapping[Place, float]],
    bundle: Bundle | None,
) -> Circumstances:
    facts, manifest = (bundle.facts or {}, bundle.manifest or {}) if bundle else ({}, {})
    hosts = facts.get("hosts", {})
    build: Mapping[str, Any] = next((one for one in manifest.get("builds", ()) if one["revision"] == cell.revision), {})
    swift, disk = (_table(build.get("settings"), part) for part in ("swift", "disk"))
    return Circumstances(
        params={**_defaults(cell), **json.loads(cell.params)},
        hosts=json.loads(cell.hosts),
        beside=beside,
        cores={name: cores for name, its in hosts.items() if (cores := count_of(its.get("cores")))},
        best=best.get((cell.cluster, cell.epoch), {}),
        replicas=count_of(swift.get("replicas")),
        base_mib=facts.get("sizes_mib", {}).get("base image"),
        disks=count_of(facts.get("store_disks")),
        cache=str(disk["cache"]) if "cache" in disk else None,
        cluster_kib=count_of(disk.get("cluster_size_kib")),
    )


def _table(settings: Any, part: str) -> Mapping[str, Any]:
    """A part of a build's settings, which a worker wrote: nothing where that is no table."""
    found = settings.get(part) if isinstance(settings, dict) else None
    return found if isinstance(found, dict) else {}


def _defaults(cell: _Cell) -> dict[str, str]:
    """What a sample's parameters leave out, because it was asked by default."""
    scenario = SCENARIOS.get(cell.scenario)
    if scenario is None or scenario.version != cell.version:
        return {}
    return {parameter.name: str(parameter.default) for parameter in scenario.parameters}


def _columns(frame: pd.DataFrame, *names: str) -> list[list[Any]]:
    return [frame[name].tolist() for name in names]


def _beyond(held: pd.DataFrame) -> dict[_Asked, str]:
    """Why a metric is void for a session, for those that are: what one revision cannot have done voids all of them.

    A revision's median counts, never its single samples, which would cut off one side of what was measured.
    """
    counted = held[held["valid"].astype(bool) & ~held["warm_up"].astype(bool) & held["limit"].notna()]
    groups = counted.groupby([*_Asked._fields, "revision", "placement"], sort=False)
    medians = groups.agg(share=("share", "median"), limit_why=("limit_why", "first")).reset_index()
    beyond = medians[medians["share"] > BEYOND_LIMIT].sort_values("share")  # the worst comes last, and is told
    columns = _columns(beyond, "share", "limit_why")
    return {
        asked: f"a revision of this session is at {100 * share:.0f} % of what is possible here: {why}"
        for asked, share, why in zip(map(_Asked, *_columns(beyond, *_Asked._fields)), *columns, strict=True)
    }
