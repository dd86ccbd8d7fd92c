"""The front page: what was measured, what was found, where it ran, and how to read it."""

from collections.abc import Iterator
from typing import Any

from farm.results.tables import Session
from reports.judged import VERDICTS
from reports.material import Material
from reports.pages import Page
from reports.pages.clusters import cluster_card
from reports.pages.comparison import cluster_pairs, segments_sentence
from reports.pages.findings import FindingView

_NEWEST = 12
_LIVE = ("reserved", "running")


def front_pages(material: Material, findings: list[FindingView]) -> Iterator[Page]:
    content = {
        "campaigns": _campaigns(material),
        "counts": _counts(material),
        "findings": findings[:_NEWEST],
        "more_findings": max(0, len(findings) - _NEWEST),
        "clusters": [cluster_card(material, view) for view in material.clusters.values()],
        "pairs": cluster_pairs(material),
        "segments": [words for name in material.clusters if (words := segments_sentence(material, name))],
        "check_ins": material.check_ins[:_NEWEST],
        "verdicts": VERDICTS,
        "example": any(view.inventory.donor.example for view in material.clusters.values()),
    }
    yield Page("index.html", "index.html.j2", "index.html", content)
    yield Page("method.html", "method.html.j2", "method.html", {})


def _counts(material: Material) -> dict[str, int]:
    return {
        "check_ins": len(material.check_ins),
        "measured": len({row.revision for row in material.check_ins} & set(material.samples["revision"])),
        "sessions": len(material.answered),
        "open": sum(session.state in ("queued", *_LIVE) for session in material.sessions),
        "samples": len(material.samples),
        "void": int((~material.samples["valid"]).sum()),
        "judged": sum(not item.provisional for item in material.judged),
        "comparisons": sum(item.metric.may_be_judged for item in material.judged),
    }


def _campaigns(material: Material) -> list[dict[str, Any]]:
    """Unfinished campaigns: how far they are, what runs now and what is next."""
    grouped: dict[str, list[Session]] = {}
    for session in material.sessions:
        grouped.setdefault(session.campaign, []).append(session)
    return [_campaign(material, sessions) for sessions in grouped.values() if _unfinished(sessions)]


def _unfinished(sessions: list[Session]) -> bool:
    return any(session.state in ("queued", *_LIVE) for session in sessions)


def _campaign(material: Material, sessions: list[Session]) -> dict[str, Any]:
    queued = [session for session in sessions if session.state == "queued"]
    return {
        "purpose": sessions[0].purpose,
        "repository": sessions[0].repository,
        "checkin": material.revision(sessions[0].revision),
        "done": sum(session.id in material.answered for session in sessions),
        "lost": sum(session.state in ("failed", "cancelled") for session in sessions),
        "total": len(sessions),
        "live": [
            {"session": session, "cluster": material.clusters[session.cluster]}
            for session in sessions
            if session.state in _LIVE
        ],
        "next": [
            {"session": session, "cluster": material.clusters[session.cluster]}
            for session in sorted(queued, key=lambda session: (-session.priority, session.ordinal, session.cluster))[:1]
        ],
    }
