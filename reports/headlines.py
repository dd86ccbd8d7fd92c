"""What was found, in plain sentences: for the end of a run and for messages."""

from collections.abc import Mapping

from sqlalchemy import Engine

from farm.inventory import Cluster
from reports.material import ClusterView, Material
from reports.pages.findings import finding_views


def finding_sentences(engine: Engine, inventory: Mapping[str, Cluster]) -> list[str]:
    """One sentence for each public finding, newest check-in first; no line breaks."""
    clusters = {name: ClusterView(cluster, None, None) for name, cluster in inventory.items() if cluster.publish}
    return [view.sentence for view in finding_views(Material(engine, inventory, clusters))]
