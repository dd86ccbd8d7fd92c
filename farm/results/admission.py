"""Decides whether a bundle may enter: accepted whole, or rejected whole with the reason in one line.

Pure: texts and records in, records or Rejected out. A bundle comes from a machine that is not ours, which ran
code that nobody has read: nothing in it is believed because it is usual.
"""

import datetime
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from farm.results.identity import placement_class
from scenarios.contract import Metric, Scenario
from scenarios.crossing import (
    SCHEMA,
    Facts,
    Manifest,
    Outcome,
    Plan,
    Probe,
    Sample,
    canonical_json,
)
from scenarios.probes import OBSERVER, OF_LINKS, STORAGE
from scenarios.registry import identifying_params
from scenarios.strict import BadData, from_data

T = TypeVar("T")

MANIFEST = "manifest.json"
SIGNATURE = "manifest.json.sig"
SAMPLES = "samples.jsonl"
FACTS = "facts.json"
LIMITS = "limits.jsonl"  # not in bundles of earlier releases
_UNLISTED = (MANIFEST, SIGNATURE)  # the manifest lists all files but these

MAX_SAMPLES = 200_000
MAX_SAMPLE_BYTES = 64 << 10
MAX_PROBES = 20_000
MAX_PROBE_BYTES = 4 << 10
MAX_DOCUMENT_BYTES = 8 << 20  # of manifest and facts each: what JSON makes of hostile text is 20 times as large
_MAX_REASON_CHARACTERS = 300
_MAX_DEPTH = 20
_MAX_PLATFORM = 64
_MAX_INTEGER = 2**63 - 1
_MAX_ORDER = 10_000

Declared = Mapping[tuple[str, int], Mapping[str, Metric]]  # (scenario, version) → metric name → metric
_Cell = tuple[str, str, int, str, int, int]


class Rejected(ValueError):
    """Why a bundle is not let in: one line, of printable characters, however hostile the bundle."""

    def __init__(self, reason: str) -> None:
        line = " ".join(reason.split())
        printable = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line)
        super().__init__(printable[:_MAX_REASON_CHARACTERS])


@dataclass(frozen=True)
class Content:
    """A bundle that could be read; `manifest` is signed."""

    manifest: Manifest
    samples: tuple[Sample, ...]
    facts: Facts
    probes: tuple[Probe, ...] = ()


@dataclass(frozen=True)
class Issued:
    """The plan that a session's latest attempt was sent out with."""

    state: str
    attempt: int
    digest: str
    plan: Plan


def declared_metrics(scenarios: Iterable[Scenario]) -> Declared:
    """What the scenarios say that they measure."""
    return {(one.name, one.version): {metric.name: metric for metric in one.metrics} for one in scenarios}


def read_manifest(text: bytes) -> Manifest:
    data = _load(text, MANIFEST)
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema != SCHEMA:
        raise Rejected(f"{MANIFEST}: schema {schema!r} is unknown, this farm reads {SCHEMA}")
    return _shaped(data, Manifest, MANIFEST)


def read_facts(text: bytes) -> Facts:
    facts = _shaped(_load(text, FACTS), Facts, FACTS)
    if not facts.declared:
        raise Rejected(f"{FACTS}: declared is empty: figures without a known epoch cannot be compared")
    return facts


def read_samples(text: bytes) -> tuple[Sample, ...]:
    """One JSON object a line."""
    if text.count(b"\n") > MAX_SAMPLES:
        raise Rejected(f"too large: more than {MAX_SAMPLES} samples")
    numbered = [(f"{SAMPLES}, line {number}", line) for number, line in enumerate(text.splitlines(), start=1)]
    return tuple(_shaped(_load(line, source, MAX_SAMPLE_BYTES), Sample, source) for source, line in numbered)


def read_probes(text: bytes) -> tuple[Probe, ...]:
    """One JSON object a line."""
    if text.count(b"\n") > MAX_PROBES:
        raise Rejected(f"too large: more than {MAX_PROBES} probes")
    numbered = [(f"{LIMITS}, line {number}", line) for number, line in enumerate(text.splitlines(), start=1)]
    return tuple(_shaped(_load(line, source, MAX_PROBE_BYTES), Probe, source) for source, line in numbered)


def check_files(manifest: Manifest, digests: Mapping[str, str]) -> None:
    """Every file that is there is listed with its digest, and every listed one is there."""
    found = {path: digest for path, digest in digests.items() if path not in _UNLISTED}
    for path in (SAMPLES, FACTS):
        if path not in manifest.files:
            raise Rejected(f"{path} is not listed in the manifest")
    for path, digest in manifest.files.items():
        if path not in found:
            raise Rejected(f"{path!r} is listed in the manifest and missing in the bundle")
        if found[path] != digest:
            raise Rejected(f"{path!r} has another digest than the manifest says")
    for path in found:
        if path not in manifest.files:
            raise Rejected(f"{path!r} is in the bundle and not listed in the manifest")


def check_answer(manifest: Manifest, issued: Issued) -> None:
    """The bundle answers the very plan that is out, once, from the cluster it was sent to."""
    if issued.state == "done":
        raise Rejected(f"session {manifest.session!r} was answered already")
    if issued.state not in ("reserved", "running"):
        raise Rejected(f"session {manifest.session!r} is {issued.state}: its plan is no longer out")
    if manifest.attempt != issued.attempt or manifest.plan != issued.digest:
        raise Rejected(f"this plan was never issued as attempt {manifest.attempt} of session {manifest.session!r}")
    if manifest.cluster != issued.plan.cluster.name:
        raise Rejected(f"comes from cluster {manifest.cluster!r}, was sent to {issued.plan.cluster.name!r}")
    if manifest.harness != issued.plan.harness:
        raise Rejected("was measured by another harness than the plan's: the worker's checkout differs")


def check_content(content: Content, plan: Plan, declared: Declared) -> None:
    """Samples, outcomes, builds and facts are about this plan and make sense together."""
    manifest = content.manifest
    _check_time(manifest.started, "started")
    _check_time(manifest.finished, "finished")
    revisions = {build.revision for build in plan.builds}
    for build in manifest.builds:
        _must(build.revision in revisions, f"build of revision {build.revision!r}, which the plan does not have")
        _must(len(build.platform) <= _MAX_PLATFORM, f"build of revision {build.revision!r}: its platform is too long")
    _must(
        content.facts.fidelity.concluded == manifest.fidelity,
        f"fidelity is {manifest.fidelity} in the manifest and {content.facts.fidelity.concluded} in the facts",
    )
    for number, outcome in enumerate(manifest.outcomes, start=1):
        _check_outcome(outcome, plan, f"outcome {number}")
    measured = {_cell(outcome) for outcome in manifest.outcomes if outcome.outcome == "measured"}
    seen: set[object] = set()
    for number, sample in enumerate(content.samples, start=1):
        where = f"sample {number}"
        _check_sample(sample, manifest, plan, declared, where)
        _must(not sample.valid or _cell(sample) in measured, f"{where} is valid, but its cell is not measured")
        identity = (_cell(sample), sample.metric, sample.warm_up, placement_class(sample.hosts))
        _must(identity not in seen, f"{where} is there twice: {sample.scenario} {sample.metric} in one cell")
        seen.add(identity)
    _check_probes(content.probes, plan)


def _check_probes(probes: Sequence[Probe], plan: Plan) -> None:
    places = {host.name for host in plan.cluster.hosts} | {STORAGE, OBSERVER}
    seen: set[object] = set()
    for number, probe in enumerate(probes, start=1):
        where = f"probe {number}"
        ends = {probe.at, probe.to} - {None}
        _must(ends <= places, f"{where}: {probe.kind} of {' and '.join(map(repr, sorted(map(str, ends))))}")
        linked = probe.to is not None and probe.to != probe.at
        _must(linked if probe.kind in OF_LINKS else probe.to is None, f"{where}: {probe.kind} to {probe.to!r}")
        _must(math.isfinite(probe.value) and probe.value > 0, f"{where}: {probe.kind} is {probe.value}")
        _must(0 <= probe.block <= plan.blocks, f"{where}: block {probe.block} is not in the plan")
        _check_time(probe.time, where)
        identity = (probe.kind, probe.at, probe.to, probe.block)
        _must(identity not in seen, f"{where} is there twice: {probe.kind} at {probe.at!r} before block {probe.block}")
        seen.add(identity)


def _check_outcome(outcome: Outcome, plan: Plan, where: str) -> None:
    _check_place(outcome, plan, where)
    kind = outcome.outcome
    _must((kind == "failed") == (outcome.fault is not None), f"{where} is {kind}, with fault {outcome.fault}")
    _must(kind == "measured" or bool(outcome.reason), f"{where} is {kind}, without a reason")


def _check_sample(sample: Sample, manifest: Manifest, plan: Plan, declared: Declared, where: str) -> None:
    same = (sample.session, sample.attempt) == (manifest.session, manifest.attempt)
    _must(same, f"{where} is of session {sample.session!r}, attempt {sample.attempt}")
    _check_place(sample, plan, where)
    metrics = declared.get((sample.scenario, sample.version))
    if metrics is None:
        raise Rejected(f"{where}: scenario {sample.scenario!r} version {sample.version} is unknown here")
    metric = metrics.get(sample.metric)
    if metric is None:
        raise Rejected(f"{where}: scenario {sample.scenario!r} declares no metric {sample.metric!r}")
    _must(sample.unit == metric.unit, f"{where}: {sample.metric} is in {sample.unit!r}, not in {metric.unit!r}")
    _must(math.isfinite(sample.value), f"{where}: value {sample.value} is not finite")
    _must(0 <= sample.order < _MAX_ORDER, f"{where}: order {sample.order} is out of range")
    hosts = {host.name for host in plan.cluster.hosts}
    for role, host in sample.hosts.items():
        _must(host in hosts, f"{where}: {role} host {host!r} is not in the plan")
    _must(sample.valid == (sample.void_reason is None), f"{where}: valid and void_reason contradict each other")
    _check_time(sample.time, where)


def _check_place(record: Sample | Outcome, plan: Plan, where: str) -> None:
    _must(
        any(build.revision == record.revision for build in plan.builds),
        f"{where}: revision {record.revision!r} is not in the plan",
    )
    asked = [one for one in plan.scenarios if (one.name, one.version) == (record.scenario, record.version)]
    _must(bool(asked), f"{where}: scenario {record.scenario!r} version {record.version} is not in the plan")
    _must(
        any(identifying_params(one).items() <= record.params.items() for one in asked),
        f"{where}: {record.scenario} was not asked with parameters {canonical_json(record.params)}",
    )
    _must(0 <= record.block < plan.blocks, f"{where}: block {record.block} is not in the plan")
    _must(0 <= record.round < plan.rounds, f"{where}: round {record.round} is not in the plan")


def _cell(record: Sample | Outcome) -> _Cell:
    params = canonical_json(record.params)
    return record.revision, record.scenario, record.version, params, record.block, record.round


def _check_time(text: str, where: str) -> None:
    try:
        time = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise Rejected(f"{where}: {text!r} is not a time") from None
    _must(time.tzinfo is not None and 2000 <= time.year < 2200, f"{where}: {text!r} is not a time with its zone")


def _must(held: bool, reason: str) -> None:
    if not held:
        raise Rejected(reason)


def _load(text: bytes, source: str, limit_bytes: int = MAX_DOCUMENT_BYTES) -> Any:
    """JSON without what other readers, or the database, would stumble over."""
    if len(text) > limit_bytes:
        raise Rejected(f"too large: {source} has more than {limit_bytes >> 10} KiB")
    try:
        data = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Rejected(f"{source}: not valid JSON: {error}") from None
    _check_plain(data, source)
    return data


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _check_plain(data: object, source: str) -> None:
    waiting: list[tuple[object, int]] = [(data, 0)]
    while waiting:
        item, depth = waiting.pop()
        _must(depth <= _MAX_DEPTH, f"{source}: nested more than {_MAX_DEPTH} deep")
        if isinstance(item, dict):
            waiting += [(part, depth + 1) for pair in item.items() for part in pair]
        elif isinstance(item, list):
            waiting += [(part, depth + 1) for part in item]
        elif isinstance(item, str):
            _must(_is_text(item), f"{source}: has text that is not Unicode, or has a NUL in it")
        elif isinstance(item, float):
            _must(math.isfinite(item), f"{source}: has a number that is not finite")
        elif isinstance(item, int):
            _must(abs(item) <= _MAX_INTEGER, f"{source}: has a number that is too large")


def _is_text(item: str) -> bool:
    try:
        item.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in item


def _shaped(data: object, shape: type[T], source: str) -> T:
    try:
        return from_data(data, shape, source=source)
    except BadData as error:
        raise Rejected(str(error)) from None
