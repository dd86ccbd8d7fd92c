"""Our upload client against python-swiftclient's segmented upload, on the same deployed Swift, in interleaved pairs.

`python -m bench.upload [PAIRS]` prints one table row: goodputs, their ratio with its 90 % interval, and whether its
lower end is at least 0.9. Both send the same 256 MiB as the same segments over as many connections from the same place
of the test network, already logged in, and are timed from the call until the store has the whole object.
"""

import math
import random
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy import stats

from farm.cli.example import make_example_repository
from farm.settings import load_settings
from scenarios.crossing import PlannedBuild, PlannedCluster, PlannedHost
from workers.agent import AgentLink
from workers.builds import Build, resolve
from workers.hosts.namespaces import LocalCluster
from workers.marks import SessionMark
from workers.objectstores.payload import Payload
from workers.objectstores.swift import SwiftStore
from workers.objectstores.swift_client import CONTAINER
from workers.stacks.swift import Deployment, deploy

PAIRS = 12
SEGMENT_MIB, PARALLEL = 32, 4
LOWEST_RATIO = 0.9
UPLOAD_TIMEOUT_S = 240.0


@dataclass(frozen=True)
class Pair:
    """Seconds of two uploads, one right after the other."""

    ours_s: float
    theirs_s: float


def ratio_of(pairs: Sequence[Pair]) -> tuple[float, float, float]:
    """Our goodput ÷ theirs: the geometric mean over pairs and its 90 % interval."""
    logs = [math.log(pair.theirs_s / pair.ours_s) for pair in pairs]
    middle = statistics.fmean(logs)
    reach = float(stats.t.ppf(0.95, len(logs) - 1)) * statistics.stdev(logs) / math.sqrt(len(logs))
    return math.exp(middle), math.exp(middle - reach), math.exp(middle + reach)


def row(pairs: Sequence[Pair], mib: int) -> str:
    ratio, low, high = ratio_of(pairs)
    ours = mib / statistics.median(pair.ours_s for pair in pairs)
    theirs = mib / statistics.median(pair.theirs_s for pair in pairs)
    verdict = "ok" if low >= LOWEST_RATIO else f"BELOW {LOWEST_RATIO}"
    return (
        f"upload, ours / python-swiftclient | {len(pairs)} pairs | {ours:.0f} / {theirs:.0f} MiB/s (medians) | "
        f"ratio {ratio:.2f} [{low:.2f}, {high:.2f}] 90 % | {verdict}"
    )


def measure(home: Path, pairs: int = PAIRS) -> list[Pair]:
    """Bring a cluster and the example's first check-in up, upload, and take all of it down again."""
    hosts = (PlannedHost("h1", "local:debian12", "here"),)
    local = LocalCluster(home, PlannedCluster("bench-upload", "qemu", hosts, storage_disks=4, storage_disk_mib=3072))
    try:
        cluster = local.up()
        mark = SessionMark(cluster.folder, f"bench-{secrets.token_hex(6)}")
        with mark, cluster.observer.agent(mark.session) as observer:
            payload = Payload(mark.folder / "payload")
            run_dir, software = mark.folder / "deployment", home / "cache" / "software"
            build = _example_build(home)
            with deploy(build, cluster.storage, lease=mark.session, run_dir=run_dir, software=software) as deployment:
                return _interleave(SwiftStore(deployment, observer, payload), deployment, observer, payload, pairs)
    finally:
        local.down()


def _example_build(home: Path) -> Build:
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder) / "example"
        make_example_repository(repository)
        commit = (repository / ".git" / "refs" / "heads" / "main").read_text().strip()
        return resolve(PlannedBuild(commit, "example", ("subject",), str(repository), commit), home)


def _interleave(
    store: SwiftStore, deployment: Deployment, observer: AgentLink, payload: Payload, pairs: int
) -> list[Pair]:
    order = random.Random()

    def ours(name: str) -> float:
        return store.upload_segments(name, segment_mib=SEGMENT_MIB, parallel=PARALLEL).total_s

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
            found.append(Pair(times[ours], times[theirs]))
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
    pairs = measure(load_settings().home, int(arguments[0]) if arguments else PAIRS)
    print(row(pairs, 256))
    return 0 if ratio_of(pairs)[1] >= LOWEST_RATIO else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
