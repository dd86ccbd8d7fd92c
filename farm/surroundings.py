"""New surroundings without a new check-in: revisions that became other bits on a cluster than the session before had.

A farm's lock that was changed, or a build that could not be had again, changes what is measured though nobody has
checked anything in. That is a finding of kind environment; within a session all revisions stand under the same lock, so
it is in no comparison of a check-in with its parent.
"""

import datetime
from collections.abc import Mapping, Sequence

from farm.comparisons import owner_of
from farm.results.tables import Finding, Session
from scenarios.crossing import ResolvedBuild, digest_of
from scenarios.locks import changed_pins

Built = Mapping[str, Sequence[ResolvedBuild]]  # session → what its revisions became


def build_findings(sessions: Sequence[Session], built: Built, now: datetime.datetime) -> list[Finding]:
    """`sessions` in the order they were measured."""
    found = []
    latest: dict[tuple[str, ...], ResolvedBuild] = {}  # by repository, cluster, revision and platform
    for session in sessions:
        changes: dict[tuple[str, ...], list[str]] = {}  # what changed → for which revisions
        for build in built.get(session.id, ()):
            key = (session.repository, session.cluster, build.revision, build.platform)
            before = latest.get(key)
            if before is not None and before.digest != build.digest:
                changes.setdefault(tuple(_changed(before, build)), []).append(build.revision)
            latest[key] = build
        found += [_finding(session, revisions, changed, now) for changed, revisions in changes.items()]
    return found


def _changed(before: ResolvedBuild, after: ResolvedBuild) -> list[str]:
    lines = changed_pins(before.lock, after.lock)
    return lines if before.code == after.code else [*lines, "the code was built to other bytes"]


def _finding(session: Session, revisions: Sequence[str], changed: Sequence[str], now: datetime.datetime) -> Finding:
    identity = {"kind": "environment", "repository": session.repository, "cluster": session.cluster}
    entry = {
        "scenario": "build",
        "version": 1,
        "metric": "bits",
        "unit": "",
        "params": {},
        "ratio": None,
        "low": None,
        "high": None,
        "n": len(revisions),
        "replication": "revision",
        "direction": "rebuilt",
        "since": session.id,
        "reason": ", ".join(changed),
    }
    return Finding(
        key=digest_of({**identity, "since": session.id, "rebuilt": list(changed), **owner_of(session)}),
        kind="environment",
        state="confirmed",
        cluster=session.cluster,
        repository=session.repository,
        revision=revisions[0],
        last_good=None,
        direction="rebuilt",
        metrics=[entry],
        found_at=now,
        **owner_of(session),
    )
