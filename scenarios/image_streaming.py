"""How soon does a guest run whose image is still on another host, and what does it notice of the image's coming?

A guest starts from an overlay over a base image that another host serves over the network. When it has answered, the
hypervisor is asked to bring everything that the disk lacks, in the background. All the while the guest reads blocks
from all over its disk, writes some, past all caches of its own, and times each. The sender's link is capped, so that
the image does not come quicker than a network would bring it; and each of the server's answers comes later by
`latency_ms` where that is asked for. It is the server that waits then, and not the wire.

Measured: request to first answer (`answer_ms`), the CPU time of QEMU, of libvirtd and of the image's server until the
image has come (`qemu_cpu_s`, `daemon_cpu_s`, `server_cpu_s`), how long the pull takes and how fast that is (`stream_s`,
`stream_mib_s`), what the other host served in all (`served_mib`), how long one read of it takes before there is a guest
(`served_read_ms`), and the 99th percentile of the guest's reads and
writes while the image comes against afterwards (`read_p99_us`, `read_p99_after_us` …, by the guest's clock).

Not measured: many guests that pull the same image; images that are compressed or come from an object store.

The proof: the disk lies over nothing any more, and holds the base image's data but for what the guest wrote; the
guest's writes, read from outside when it has ended, are whole; the other host served no less than the image; and that
one read took no less than the latency that was asked for.
"""

import contextlib
from collections.abc import Sequence

from scenarios.contract import Bench, Cell, Guest, Metric, Scenario, Sheet, Unsupported, Workload
from scenarios.parameters import Number, Parameter, Values, number
from scenarios.unlimited import CPU, STAGE

TIMED_BLOCKS = 32  # at the disk's end, which the guest writes in turn
LEAST_TIMES = 50  # below that there is no 99th percentile to speak of
AFTER_S = 2.0
WRITTEN_MIB = 1  # more than the guest writes before they come: these blocks need not come any more
SETTLE_S = 0.2
TIMEOUT_S = 60.0
SLOWEST_MIB_S = 2  # a pull that is slower has hung, but for its server's latency
READS_PER_MIB = 16  # of 64 KiB, one after the other, at most


class ImageStreaming:
    name = "image_streaming"
    version = 3
    metrics: tuple[Metric, ...] = (
        Metric("answer_ms", "ms", "lower", 0.1, "Request to first answer", no_limit=STAGE),
        Metric("stream_s", "s", "lower", 0.25, "Pulling the image"),
        Metric("stream_mib_s", "MiB/s", "higher", 0.25, "Speed of the pull", judged=False),
        Metric("served_mib", "MiB", "lower", 0.1, "Read of the image on the other host", judged=False),
        Metric(
            "served_read_ms",
            "ms",
            "lower",
            0.5,
            "One read of the image, before the guest",
            judged=False,
            no_limit="how soon a server answers is its own doing",
        ),
        Metric(
            "qemu_cpu_s", "s", "lower", 0.25, "CPU time of QEMU until the image has come", judged=False, no_limit=CPU
        ),
        Metric(
            "daemon_cpu_s",
            "s",
            "lower",
            0.25,
            "CPU time of libvirtd until the image has come",
            judged=False,
            no_limit=CPU,
        ),
        Metric("server_cpu_s", "s", "lower", 0.25, "CPU time of the image's server", judged=False, no_limit=CPU),
        Metric(
            "read_p99_us",
            "µs",
            "lower",
            0.5,
            "99th percentile of reads meanwhile",
            judged=False,
            no_limit="what is read may be on either host, or in its memory",
        ),
        Metric("write_p99_us", "µs", "lower", 0.5, "99th percentile of writes meanwhile", judged=False),
        Metric("read_p99_after_us", "µs", "lower", 0.5, "99th percentile of reads afterwards", judged=False),
        Metric("write_p99_after_us", "µs", "lower", 0.5, "99th percentile of writes afterwards", judged=False),
    )
    parameters: tuple[Parameter, ...] = (
        Number("bandwidth_mib_s", 32, 0, 100_000, "MiB/s", "a cap for the sender's link; 0 is none"),
        Number("latency_ms", 0, 0, 1000, "ms", "by how much later the image's server answers"),
    )

    def measure(self, bench: Bench, sheet: Sheet, params: Values) -> None:
        roles = dict(zip(("host", "server"), (host.name for host in bench.hosts), strict=False))
        with sheet.cell(hosts=roles) as cell:
            if len(bench.hosts) < 2:
                raise Unsupported(f"an image comes from another host, the cluster has {len(bench.hosts)}")
            with contextlib.ExitStack() as made:
                self._measure(bench, cell, made, number(params, "bandwidth_mib_s"), number(params, "latency_ms"))

    def _measure(
        self, bench: Bench, cell: Cell, made: contextlib.ExitStack, bandwidth_mib_s: int, latency_ms: int
    ) -> None:
        """The disk goes when `made` is left, or when it has been proven."""
        host, server = bench.hosts[0], bench.hosts[1]
        nonce = bench.nonce()
        with contextlib.ExitStack() as within:
            served = within.enter_context(server.serve_base(latency_ms=latency_ms))
            read_ms = host.served_read_s(served) * 1e3
            cell.record("served_read_ms", read_ms)
            cell.prove(read_ms >= latency_ms, f"a read of the image takes {read_ms:.3g} ms, not {latency_ms} or more")
            pull_timeout_s = TIMEOUT_S + served.size_mib * (1 / SLOWEST_MIB_S + latency_ms / 1e3 * READS_PER_MIB)
            if bandwidth_mib_s:
                within.enter_context(server.link_capped(bandwidth_mib_s, limit_s=2 * TIMEOUT_S + pull_timeout_s))
            disk, _ = host.make_streamed_disk(served)
            made.callback(disk.remove)
            guest = within.enter_context(host.guest(nonce=nonce, disk=disk, workload=Workload(disk_times=True)))
            daemon_s = host.daemon_cpu_s()
            requested_s = guest.start()
            answer = guest.first_answer(timeout_s=TIMEOUT_S)
            started_s, finished_s = guest.pull(timeout_s=pull_timeout_s)
            cell.record("qemu_cpu_s", guest.vmm_cpu_s())
            cell.record("daemon_cpu_s", host.daemon_cpu_s() - daemon_s)
            cell.record("server_cpu_s", served.server_cpu_s())
            served_mib = served.served_mib()
            bench.pause_s(SETTLE_S + AFTER_S)
            self._record_times(cell, guest, started_s, finished_s)
            guest.stop()

        cell.record("answer_ms", (answer.at_s - requested_s) * 1e3)
        cell.record("stream_s", finished_s - started_s)
        cell.record("stream_mib_s", served.size_mib / (finished_s - started_s))
        cell.record("served_mib", served_mib)
        cell.prove(answer.nonce == nonce, f"the guest answered '{answer.nonce}', not its nonce '{nonce}'")
        least_mib = served.size_mib - WRITTEN_MIB
        cell.prove(served_mib >= least_mib, f"{served_mib:.1f} MiB served of an image of {served.size_mib} MiB")
        kept = made.pop_all()

        def verify() -> None:
            with kept:
                cell.evidence(disk.prove_sharing())
                cell.evidence(disk.prove_written(nonce, TIMED_BLOCKS))
                cell.evidence(disk.prove_base_unchanged())

        cell.verify_later(verify, deployed=False)

    def _record_times(self, cell: Cell, guest: Guest, started_s: float, finished_s: float) -> None:
        settled_s = finished_s + SETTLE_S
        meanwhile = guest.disk_times(started_s, finished_s)
        afterwards = guest.disk_times(settled_s, settled_s + AFTER_S)
        for times, when, suffix in ((meanwhile, "while the image came", ""), (afterwards, "afterwards", "_after")):
            enough = len(times) >= LEAST_TIMES
            cell.prove(enough, f"the guest timed {len(times)} reads {when}, {LEAST_TIMES} are needed")
            cell.record(f"read_p99{suffix}_us", p99([time.read_us for time in times]))
            cell.record(f"write_p99{suffix}_us", p99([time.write_us for time in times]))


def p99(values: Sequence[float]) -> float:
    """The 99th percentile: 99 of 100 are no higher."""
    return sorted(values)[-(-len(values) * 99 // 100) - 1]


SCENARIO: Scenario = ImageStreaming()
