"""Deploys nothing: the stack is a cloud that is there already, which the session has a hold on."""

import json

from scenarios.contract import ObjectStore
from workers.hypervisors.cloud import CloudCluster
from workers.objectstores.cloud import CloudStore
from workers.objectstores.payload import Payload


class Deployment:
    """What is there anyway. Leaving the `with` leaves it there."""

    def __init__(self, cloud: CloudCluster) -> None:
        self._cloud = cloud

    def __enter__(self) -> "Deployment":
        return self

    def __exit__(self, *_: object) -> None:
        self.undeploy()

    def logs(self) -> dict[str, str]:
        """What the cloud told of itself."""
        return {"cloud": json.dumps(self._cloud.told.all, indent=2, sort_keys=True)}

    def store(self, payload: Payload) -> ObjectStore | None:
        """Where the cloud has one."""
        cloud = self._cloud
        if not cloud.client.has("object-store"):
            return None
        return CloudStore(cloud.client, cloud.observer, payload, cloud.session)

    def undeploy(self) -> None:
        """Nothing is taken down. What the session has made there goes with the session's hold on the cloud."""
