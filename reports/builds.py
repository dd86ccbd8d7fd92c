"""Whether sessions deployed the same bits: what a revision became, session by session and cluster by cluster."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from reports.material import Material, plain
from scenarios.crossing import ResolvedBuild
from scenarios.locks import changed_pins
from scenarios.strict import from_data


@dataclass(frozen=True)
class Deployed:
    """A build in a session."""

    session: str
    cluster: str
    build: ResolvedBuild

    @cached_property
    def digest(self) -> str:
        return self.build.digest


def deployed(material: Material) -> dict[tuple[str, str], list[Deployed]]:
    """By revision and platform, in the order in which sessions were asked for."""
    found: dict[tuple[str, str], list[Deployed]] = {}
    for session in material.sessions:
        for build in builds_of(material, session.id):
            one = Deployed(session.id, material.clusters[session.cluster].donor, build)
            found.setdefault((build.revision, build.platform), []).append(one)
    return found


def builds_of(material: Material, session: str) -> list[ResolvedBuild]:
    bundle = material.answered.get(session)
    manifest: Mapping[str, Any] = (bundle.manifest or {}) if bundle else {}
    return [from_data(one, ResolvedBuild, source=f"session {session}") for one in manifest.get("builds", [])]


def bits_told(own: Deployed, all_of_it: Iterable[Deployed]) -> list[str]:
    """What other sessions ran of the same revision on the same platform: the same bits, or which others."""
    others = [one for one in all_of_it if one.session != own.session]
    same = [one for one in others if one.digest == own.digest]
    told = []
    if same:
        clusters = ", ".join(dict.fromkeys(plain(one.cluster) for one in same))
        told.append(f"the same bits as in {len(same)} other session{'s' if len(same) != 1 else ''}, on {clusters}")
    seen = {own.digest}
    for one in others:
        if one.digest not in seen:
            seen.add(one.digest)
            told.append(f"other bits in session {one.session} on {plain(one.cluster)}: {_difference(one, own)}")
    return told or ["no other session has deployed it on this platform"]


def _difference(other: Deployed, own: Deployed) -> str:
    parts = [plain(line) for line in changed_pins(other.build.lock, own.build.lock)]
    if other.build.code != own.build.code:
        parts.append("its code was built to other bytes")
    return ", ".join(parts)
