"""What scenarios that move guests have in common: their guests, how these are moved, and where to."""

from scenarios.contract import Bench, Disk, Guest, Host, MigrationStyle, Unsupported, Workload
from scenarios.parameters import Choice, Number, Parameter, Values, number, word
from scenarios.survival import wait_until_steady

TIMEOUT_S = 60.0
WORKLOAD: tuple[Parameter, ...] = (
    Number("working_set_mib", 32, 1, 1024, "MiB", "memory that the guest rewrites"),
    Number("dirty_pages_per_s", 1000, 100, 100_000, "pages/s", "how fast it rewrites it, 4 KiB each"),
)
BANDWIDTH = Number("bandwidth_mib_s", 0, 0, 100_000, "MiB/s", "a cap for the transfer; 0 is none")
STYLE: tuple[Parameter, ...] = (
    BANDWIDTH,
    Choice("mode", "pre-copy", ("pre-copy", "post-copy"), "whether the guest moves after its memory or before"),
    Number("connections", 0, 0, 16, "connections", "parallel connections; 0 is the ordinary single one"),
    Choice("compression", "none", ("none", "xbzrle", "zstd"), "of the memory on its way"),
    Choice("auto_converge", "no", ("no", "yes"), "slow the guest down until its memory can be caught up with"),
)
PLACEMENT = Choice("placement", "any", ("any", "same-zone", "other-zone"), "where the target is, seen from the source")


def workload_of(params: Values) -> Workload:
    return Workload(
        memory_mib=number(params, "working_set_mib"), pages_per_s=number(params, "dirty_pages_per_s"), disk=True
    )


def style_of(params: Values) -> MigrationStyle:
    compression = word(params, "compression")
    return MigrationStyle(
        bandwidth_mib_s=number(params, "bandwidth_mib_s") or None,
        post_copy=word(params, "mode") == "post-copy",
        connections=number(params, "connections"),
        compression="xbzrle" if compression == "xbzrle" else "zstd" if compression == "zstd" else "none",
        auto_converge=word(params, "auto_converge") == "yes",
    )


def two_hosts(bench: Bench, placement: str = "any") -> tuple[Host, Host]:
    """The source and the target of a move; raises Unsupported where no two hosts stand so."""
    if len(bench.hosts) < 2:
        raise Unsupported(f"live migration needs two hosts, the cluster has {len(bench.hosts)}")
    for source in bench.hosts:
        for target in bench.hosts:
            if target is not source and _stands(placement, source.zone, target.zone):
                return source, target
    told = ", ".join(f"{host.name} in {host.zone}" for host in bench.hosts)
    raise Unsupported(f"no two hosts stand in {'one zone' if placement == 'same-zone' else 'different zones'}: {told}")


def working_guest(bench: Bench, host: Host, disk: Disk, workload: Workload) -> Guest:
    """A guest at work, kept until the round has been verified."""
    guest = bench.keep(host.guest(nonce=bench.nonce(), disk=disk, workload=workload))
    guest.start()
    guest.first_answer(timeout_s=TIMEOUT_S)
    wait_until_steady(bench, guest)
    return guest


def _stands(placement: str, source_zone: str, target_zone: str) -> bool:
    return placement == "any" or (placement == "same-zone") == (source_zone == target_zone)
