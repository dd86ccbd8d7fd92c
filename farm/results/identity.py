"""What makes two samples comparable: the series they belong to."""

from collections.abc import Mapping
from typing import Any

from farm.results.tables import Session
from scenarios.crossing import Facts, Plan, PlannedBuild, Sample, digest_of


def placement_class(hosts: Mapping[str, str]) -> str:
    """How the hosts of a sample stand to each other; which ones they were does not matter.

    >>> placement_class({"source": "h1", "target": "h2"})
    'other host'
    """
    if not hosts:
        return "whole cluster"
    if len(hosts) == 1:
        return "one host"
    return "same host" if len(set(hosts.values())) == 1 else "other host"


def epoch_of(facts: Facts) -> str:
    """Digest of the declared facts: when one changes, a new epoch begins."""
    return digest_of(facts.declared)


def frozen_build(plan: Plan) -> PlannedBuild | None:
    """The canary of a session; None in a session without."""
    return next((build for build in plan.builds if "canary" in build.roles), None)


def series_identity(session: Session, plan: Plan, facts: Facts, sample: Sample) -> dict[str, Any]:
    """Everything that identifies the sample's series, as columns of `tables.Series` without its key.

    The guest image is the canary's: that one changes with the kernel or our own guest program, which must begin
    a new series. A check-in that changes its guest is what a series is there to show, so it must not end it.
    """
    canary = frozen_build(plan)
    reference = canary or plan.builds[0]
    return {
        "tenant": session.tenant,
        "account": session.account,
        "visibility": session.visibility,
        "stack": session.repository,
        "cluster": session.cluster,
        "scenario": sample.scenario,
        "version": sample.version,
        "metric": sample.metric,
        "unit": sample.unit,
        "params": dict(sample.params),
        "placement": placement_class(sample.hosts),
        "guest": facts.guest_images.get(reference.revision, ""),
        "canary": canary.revision if canary else "",
        "epoch": epoch_of(facts),
    }
