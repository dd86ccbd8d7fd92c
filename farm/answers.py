"""What `farm results`, `compare` and `regressions` answer: rows in, plain data out, with the keys of the contract.

A metric of a scenario that asks with parameters is written `create_ms[method=overlay]`.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from farm.results.tables import CheckIn, ComparisonRow, Finding
from scenarios.crossing import canonical_json

if TYPE_CHECKING:
    import pandas as pd

Answer = dict[str, Any]

_SAMPLE_KEYS = (
    *("cluster", "session", "block", "round", "attempt", "order", "revision", "scenario", "version", "metric"),
    *("unit", "value", "params", "hosts", "warm_up", "valid", "void_reason", "taken_at", "fidelity"),
    *("limit", "share", "limit_why"),
)


def results(samples: "pd.DataFrame") -> list[Answer]:
    """Samples with their cluster, in the order of the frame (of `farm.limits.held_samples`)."""
    return [_sample(record) for record in samples[list(_SAMPLE_KEYS)].to_dict("records")]


def _sample(record: Mapping[Any, Any]) -> Answer:
    answer = {str(key): value for key, value in record.items() if key != "taken_at"}
    answer["params"], answer["hosts"] = json.loads(record["params"]), json.loads(record["hosts"])
    answer["void_reason"] = None if record["valid"] else record["void_reason"]
    answer["time"] = record["taken_at"].isoformat()
    answer |= {name: record[name] if math.isfinite(record[name]) else None for name in ("limit", "share")}
    return answer


def compare(comparisons: Iterable[ComparisonRow]) -> list[Answer]:
    """Judged differences. Where clusters are compared, `cluster` is "this/that" and the ratio this ÷ that."""
    return [
        {
            "cluster": row.cluster if row.other_cluster is None else f"{row.cluster}/{row.other_cluster}",
            "scenario": row.scenario,
            "metric": metric_label(row.metric, row.params),
            "unit": row.unit,
            "ratio": row.ratio,
            "low": row.low,
            "high": row.high,
            "n": row.n,
            "replication": row.replication,
            "verdict": row.verdict,
            "delta": row.delta,
        }
        for row in comparisons
    ]


def regressions(findings: Iterable[Finding], check_ins: Iterable[CheckIn]) -> list[Answer]:
    """One answer per metric of each finding.

    `index` is the check-in's number. Its candidates are the check-ins after the last good one: itself alone,
    unless its parent could not be measured. Of a merge they are the commits inside that did it, once those are known.
    A finding of kind environment or harness has none.
    """
    numbered = {(row.repository, row.revision): row for row in check_ins}
    return [_regression(finding, entry, numbered) for finding in findings for entry in finding.metrics]


def _candidates(finding: Finding, numbered: Mapping[tuple[str, str], CheckIn]) -> list[Answer]:
    last_good = numbered.get((finding.repository, finding.last_good or ""))
    blamed = numbered.get((finding.repository, finding.revision))
    between = [finding.revision]
    if last_good is not None and blamed is not None:
        its = (row for (repository, _), row in numbered.items() if repository == finding.repository)
        between = [row.revision for row in its if last_good.number < row.number <= blamed.number]
    if finding.inside is not None and finding.inside["state"] == "named":
        together = [revision for stretch in finding.inside["together"] for revision in stretch]
        between = [*(one["revision"] for one in finding.inside["commits"]), *together]
    return [{"revision": revision, "probability": 1 / len(between)} for revision in between]


def _regression(finding: Finding, entry: Mapping[str, Any], numbered: Mapping[tuple[str, str], CheckIn]) -> Answer:
    check_in = numbered.get((finding.repository, finding.revision))
    metric = metric_label(entry["metric"], entry["params"])
    blamed = finding.kind == "product"
    return {
        "series": f"{finding.repository}/{finding.cluster}/{entry['scenario']}-{entry['version']}/{metric}",
        "cluster": finding.cluster,
        "scenario": entry["scenario"],
        "metric": metric,
        "kind": finding.kind,
        "revision": finding.revision,
        "index": check_in.number if check_in is not None else None,
        "ratio": entry["ratio"],
        "low": entry["low"],
        "high": entry["high"],
        "direction": entry["direction"],
        "last_good": finding.last_good,
        "first_bad": finding.revision if blamed else None,
        "candidates": _candidates(finding, numbered) if blamed else [],
        "state": finding.state,
    }


def metric_label(metric: str, params: Mapping[str, Any]) -> str:
    """The metric's name with its parameters, as people read it."""
    if not params:
        return metric
    return f"{metric}[{','.join(f'{key}={value}' for key, value in sorted(params.items()))}]"


def text_table(answers: Sequence[Answer], columns: Sequence[str]) -> str:
    """Answers as aligned text, one line each under a line of headings; numbers to four significant digits."""
    lines = [list(columns), *([_cell(answer[column]) for column in columns] for answer in answers)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict | list):
        return canonical_json(value)
    return str(value)
