"""Our upload client against python-swiftclient's segmented upload, on the same deployed Swift, in interleaved pairs.

`python -m bench.upload [PAIRS]` prints the ratio of goodputs with its 90 % interval, and whether its lower end is at
least 0.9; and what memory our client takes for an object that is far larger than that. Both send the same 256 MiB as
the same segments over as many connections from the same place of the test network, already logged in, and are timed
from the call until the store has the whole object.
"""

import random
import secrets
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.pairs import Row, ratio_of
from farm.cli.example import make_example_repository
from farm.settings import load_settings
from scenarios.crossing import PlannedBuild, PlannedCluster, PlannedHost
from workers.agent import AgentLink
from workers.builds import Build, Workshop, resolve
from workers.hosts.namespaces import LocalCluster
from workers.marks import SessionMark
from workers.objectstores.payload import Payload
from workers.objectstores.swift import SwiftStore
from workers.objectstores.wire import CONTAINER
from workers.stacks.swift import Deployment, deploy

PAIRS = 12
SIZE_MIB, SEGMENT_MIB, PARALLEL = 256, 32, 4
LOWEST_RATIO = 0.9
HUGE_MIB, MOST_MEMORY_MIB = 2048, 256
UPLOAD_TIMEOUT_S = 240.0


def run(home: Path, pairs: int = PAIRS) -> list[Row]:
    found, memory_mib = measure(home, pairs)
    ratio = ratio_of([(theirs_s, ours_s) for ours_s, theirs_s in found])
    return [
        Row(
            f"memory of our client for {HUGE_MIB} MiB",
            f"{memory_mib:.0f} MiB",
            f"less than {MOST_MEMORY_MIB} MiB",
            memory_mib < MOST_MEMORY_MIB,
        ),
        Row(
            "upload goodput, ours ÷ python-swiftclient",
            str(ratio),
            f"lower end ≥ {LOWEST_RATIO}",
            ratio.low >= LOWEST_RATIO,
        ),
    ]


def measure(home: Path, pairs: int) -> tuple[list[tuple[float, float]], float]:
    """Seconds of our upload and of theirs, one right after the other; MiB that our client had for a huge one.

    What was brought up for it is taken down.
    """
    hosts = (PlannedHost("h1", "local:debian12", "here"),)
    local = LocalCluster(home, PlannedCluster("bench-upload", "qemu", hosts, storage_disks=4, storage_disk_mib=3072))
    try:
        cluster = local.up()
        mark = SessionMark(cluster.folder, f"bench-{secrets.token_hex(6)}")
        with mark, cluster.observer.agent(mark.session) as observer:
            payload = Payload(mark.folder / "payload", SIZE_MIB)
            run_dir, software = mark.folder / "deployment", home / "cache" / "software"
            build = example_build(home)
            with deploy(build, cluster, lease=mark.session, run_dir=run_dir, software=software) as deployment:
                store = SwiftStore(deployment, observer, payload)
                found = _interleave(store, deployment, observer, payload, pairs)
                huge = store.upload_segments("huge", size_mib=HUGE_MIB, segment_mib=SEGMENT_MIB, parallel=PARALLEL)
                return found, huge.client_memory_mib
    finally:
        local.down()


def example_build(home: Path) -> Build:
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder) / "example"
        make_example_repository(repository)
        commit = (repository / ".git" / "refs" / "heads" / "main").read_text().strip()
        return resolve(
            PlannedBuild(commit, "example", ("subject",), str(repository), commit),
            Workshop(home, "bench", Path(folder)),
        )


def _interleave(
    store: SwiftStore, deployment: Deployment, observer: AgentLink, payload: Payload, pairs: int
) -> list[tuple[float, float]]:
    order = random.Random()

    def ours(name: str) -> float:
        return store.upload_segments(name, size_mib=SIZE_MIB, segment_mib=SEGMENT_MIB, parallel=PARALLEL).total_s

    def theirs(name: str) -> float:
        arguments = [f"http://{deployment.address}:{deployment.port}", deployment.user, deployment.password, name]
        said = observer.run([sys.executable, __file__, *arguments, str(payload.path)], timeout_s=UPLOAD_TIMEOUT_S)
        return float(said)

    found = []
    for number in range(pairs + 1):
        times = {}
        for client in order.sample((ours, theirs), 2):
            name = f"{client.__name__}-{number}"
            times[client] = client(name)
            store.remove(name)
        if number:  # the first pair warms up
            found.append((times[ours], times[theirs]))
    return found


def upload_as_swiftclient_does(url: str, user: str, password: str, name: str, path: str) -> float:
    """Seconds of one segmented upload by python-swiftclient; raises SystemExit with its reason when that fails."""
    from swiftclient.client import get_auth
    from swiftclient.service import SwiftService, SwiftUploadObject

    storage_url, token = get_auth(f"{url}/auth/v1.0", user, password)
    options = {
        "os_storage_url": storage_url,
        "os_auth_token": token,
        "segment_size": str(SEGMENT_MIB << 20),
        "segment_threads": PARALLEL,
        "use_slo": True,
        "segment_container": f"{CONTAINER}_segments",
    }
    with SwiftService(options=options) as service:
        started = time.perf_counter()
        for result in service.upload(CONTAINER, [SwiftUploadObject(path, object_name=name)]):
            if not result["success"]:
                raise SystemExit(f"python-swiftclient: {result.get('error')}")
        return time.perf_counter() - started


def main(arguments: Sequence[str]) -> int:
    if len(arguments) == 5:  # started by ourselves, on the test network
        print(upload_as_swiftclient_does(*arguments))
        return 0
    rows = run(load_settings().home, int(arguments[0]) if arguments else PAIRS)
    print(*rows, sep="\n")
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
