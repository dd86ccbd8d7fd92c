"""What revisions became on each platform: told by the first session that built them, and said to all later ones.

So a revision is resolved and built once per platform, and every cluster deploys the same bits. Where a worker cannot
have them any more it builds anew; that its digest is another one then, its session's page tells.
"""

import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session as Transaction

from farm.results.tables import Build, Session
from scenarios.crossing import Manifest, PlannedBuild, ResolvedBuild, digest_of, to_data
from scenarios.strict import from_data


def surroundings_of(planned: PlannedBuild) -> str:
    """Digest of what decides a build beside its check-in: a stack's recipe and lock, where the farm has them."""
    return digest_of({"recipe": planned.recipe, "lock": planned.lock})


def known(transaction: Transaction, session: Session, planned: PlannedBuild) -> tuple[ResolvedBuild, ...]:
    """What this build became before, for the same owner: at most one for each platform."""
    found = transaction.scalars(
        select(Build)
        .where(
            Build.revision == planned.revision,
            Build.surroundings == surroundings_of(planned),
            Build.tenant == session.tenant,
            Build.account == session.account,
        )
        .order_by(Build.platform)
    )
    return tuple(from_data(row.resolved, ResolvedBuild, source=f"build {row.id}") for row in found)


def remember(
    transaction: Transaction,
    session: Session,
    planned: tuple[PlannedBuild, ...],
    manifest: Manifest,
    now: datetime.datetime,
) -> None:
    """Keep what a session was the first to build."""
    by_revision = {one.revision: one for one in planned}
    for resolved in manifest.builds:
        its = by_revision[resolved.revision]
        there = {one.platform for one in known(transaction, session, its)}
        if not resolved.platform or resolved.platform in there:
            continue
        transaction.add(
            Build(
                revision=resolved.revision,
                platform=resolved.platform,
                surroundings=surroundings_of(its),
                digest=resolved.digest,
                resolved=to_data(resolved),
                session=session.id,
                built_at=now,
                tenant=session.tenant,
                account=session.account,
                visibility=session.visibility,
            )
        )
