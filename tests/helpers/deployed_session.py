"""A session that deploys a stack, stores an object and waits to be killed: `python -m … HOME CLUSTER_JSON SESSION STACK`.

Prints "ready" when that is done.
"""

import sys
import time
from pathlib import Path

from scenarios.crossing import PlannedCluster
from scenarios.strict import parse_json
from tests.helpers.deployments import deployed
from workers.hosts.namespaces import LocalCluster
from workers.marks import SessionMark
from workers.objectstores.payload import Payload
from workers.stacks import deployers


def main(home: str, planned: str, session: str, stack: str) -> None:
    cluster = LocalCluster(Path(home), parse_json(planned, PlannedCluster, source="plan")).up()
    with (
        SessionMark(cluster.folder, session) as mark,
        cluster.observer.agent(session) as observer,
        deployed(stack, cluster, mark, observer, Path(home)) as deployment,
    ):
        store = deployers.store_of(deployment, observer, Payload(mark.folder / "payload"))
        assert store is not None
        store.upload_single("it", size_mib=1)
        print("ready", flush=True)
        time.sleep(600)


if __name__ == "__main__":
    main(*sys.argv[1:])
