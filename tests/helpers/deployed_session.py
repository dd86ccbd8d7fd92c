"""A session that deploys a stack and waits to be killed: `python -m … HOME CLUSTER_JSON SESSION STACK`.

Prints "ready" when it is up.
"""

import sys
import time
from pathlib import Path

from scenarios.crossing import PlannedCluster
from scenarios.strict import parse_json
from tests.helpers.deployments import deployed
from workers.hosts.namespaces import LocalCluster
from workers.marks import SessionMark


def main(home: str, planned: str, session: str, stack: str) -> None:
    cluster = LocalCluster(Path(home), parse_json(planned, PlannedCluster, source="plan")).up()
    with (
        SessionMark(cluster.folder, session) as mark,
        cluster.observer.agent(session) as observer,
        deployed(stack, cluster, mark, observer, Path(home)),
    ):
        print("ready", flush=True)
        time.sleep(600)


if __name__ == "__main__":
    main(*sys.argv[1:])
