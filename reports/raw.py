"""The raw data beside the pages: samples, comparisons and findings as CSV, JSON and an Atom feed."""

import json
import math
from collections.abc import Iterator
from typing import Any
from xml.etree import ElementTree

import pandas as pd

from farm.results.tables import ComparisonRow, Finding
from reports.material import Material
from reports.pages.findings import FindingView

_OWNERSHIP = frozenset({"tenant", "account", "visibility", "id", "analysis"})
_ATOM = "http://www.w3.org/2005/Atom"


def data_files(material: Material, findings: list[FindingView]) -> Iterator[tuple[str, str]]:
    """Path in the site and content of every data file."""
    yield "data/samples.csv", _csv(material.samples)
    yield "data/samples.json", _json(_records(material.samples))
    yield "data/comparisons.json", _json([_plain_row(item.row) for item in material.judged])
    yield (
        "data/findings.json",
        _json([_plain_row(row) for row in material.findings if row.cluster in material.clusters]),
    )
    yield "data/findings.atom", _atom(material, findings)
    for metric in material.metrics:
        yield f"data/metrics/{metric.slug}.csv", _csv(material.samples_of(metric))


def _csv(samples: pd.DataFrame) -> str:
    told = samples.assign(roles=samples["roles"].map(" ".join), taken_at=samples["taken_at"].map(_iso))
    for column in ("void_reason", "label"):
        told[column] = told[column].map(_no_formula)
    return told.to_csv(index=False, lineterminator="\n")


def _no_formula(text: Any) -> Any:
    """Others' text must not become a formula in somebody's spreadsheet."""
    return f"'{text}" if isinstance(text, str) and text.startswith(("=", "+", "-", "@", "\t")) else text


def _records(samples: pd.DataFrame) -> list[dict[Any, Any]]:
    return [
        {
            **row,
            "roles": list(row["roles"]),
            "params": json.loads(row["params"]),
            "hosts": json.loads(row["hosts"]),
            "taken_at": _iso(row["taken_at"]),
            "void_reason": None if pd.isna(row["void_reason"]) else row["void_reason"],
            # of nothing there is NaN, and of what took no time at all an endless share: JSON knows neither
            **{name: row[name] if math.isfinite(row[name]) else None for name in ("limit", "share")},
        }
        for row in samples.to_dict("records")
    ]


def _plain_row(row: ComparisonRow | Finding) -> dict[str, Any]:
    columns = [column.name for column in row.__table__.columns if column.name not in _OWNERSHIP]
    return {name: getattr(row, name) for name in columns}


def _json(data: Any) -> str:
    return json.dumps(data, indent=1, ensure_ascii=False, sort_keys=True, default=_iso) + "\n"


def _iso(when: Any) -> str:
    return str(pd.Timestamp(when).strftime("%Y-%m-%dT%H:%M:%S.%fZ"))


def _atom(material: Material, findings: list[FindingView]) -> str:
    ElementTree.register_namespace("", _ATOM)
    feed = ElementTree.Element(f"{{{_ATOM}}}feed")
    _add(feed, "id", "urn:farm:findings")
    _add(feed, "title", "Findings of the farm")
    _add(feed, "updated", _iso(material.as_of) if material.as_of else "1970-01-01T00:00:00Z")
    _add(ElementTree.SubElement(feed, f"{{{_ATOM}}}author"), "name", "the farm")
    for view in findings:
        entry = ElementTree.SubElement(feed, f"{{{_ATOM}}}entry")
        _add(entry, "id", f"urn:farm:finding:{view.key}")
        _add(entry, "title", view.sentence)
        _add(entry, "updated", _iso(view.found_at))
        ElementTree.SubElement(entry, f"{{{_ATOM}}}link", href=f"../{view.path}")
        _add(entry, "summary", f"{view.detail} ({view.kind}, {view.state}, {view.fidelity})".strip())
    ElementTree.indent(feed)
    return ElementTree.tostring(feed, encoding="unicode", xml_declaration=True) + "\n"


def _add(parent: ElementTree.Element, name: str, text: str) -> None:
    ElementTree.SubElement(parent, f"{{{_ATOM}}}{name}").text = text
