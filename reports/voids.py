"""Void samples by the role of their revision: a role that loses more of them than the others is a finding."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from scenarios.crossing import Role

ROLES: tuple[Role, ...] = ("subject", "window", "parent", "base", "canary")


@dataclass(frozen=True)
class VoidCount:
    void: int
    samples: int


def void_counts(samples: pd.DataFrame) -> dict[str, VoidCount]:
    """By role, for roles that were there. A revision of several roles counts in each."""
    exploded = samples[["roles", "valid"]].explode("roles")
    groups = {str(role): group["valid"] for role, group in exploded.groupby("roles")}
    return {role: VoidCount(int((~groups[role]).sum()), len(groups[role])) for role in ROLES if role in groups}


def voids_by_campaign(samples: pd.DataFrame) -> Sequence[dict[str, Any]]:
    """One for each campaign of the frame, in the order in which they were measured."""
    return [
        {"campaign": campaign, "counts": void_counts(group)}
        for campaign, group in samples.groupby("campaign", sort=False)
    ]
