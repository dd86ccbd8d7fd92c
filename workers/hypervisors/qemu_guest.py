"""One QEMU guest through libvirt (scenarios.contract.Guest). Times are the observer's monotonic clock."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import libvirt

from scenarios import contract
from scenarios.contract import (
    Beat,
    Disk,
    DiskTime,
    Failed,
    Fault,
    FetchReport,
    MigrationReport,
    MigrationStyle,
    Moment,
    Stages,
    System,
    Unsupported,
    Workload,
    WriteTimes,
)
from scenarios.recipe import GuestSettings
from workers import clocks
from workers.hypervisors import migration, streaming
from workers.hypervisors.boot_source import BootSource
from workers.hypervisors.calls import ask, ask_vmm, find, is_gone
from workers.hypervisors.domain import (
    DISK_TARGET,
    DiskImage,
    Machine,
    as_taken_over,
    command_line,
    domain_xml,
    mac_of,
)
from workers.hypervisors.link import HostLink
from workers.hypervisors.spent import SpentByMove
from workers.volumes import disks

if TYPE_CHECKING:
    from workers.hypervisors.qemu_host import QemuHost

Seen = TypeVar("Seen")

_CALL_TIMEOUT_S = 30.0
_START_TIMEOUT_S = 60.0
_END_TIMEOUT_S = 20.0
_MONITOR_TIMEOUT_S = 15.0
_INIT_LIMIT_S = 600.0  # the first answer is waited for less long, and ends it
_CONSOLE_CHARACTERS = 200
_TELLING = ("BUG:", "Oops", "Kernel panic", "FARM-FAILED")
_POLL_S = 0.02
_LOOK_EVERY_S = 5.0
_PLAIN_STYLE = MigrationStyle()
_INIT_WORD = "FARM-INIT\r\n"
_READY_WORD = "FARM-READY"
_CLOCK_CORRECTION = 0.01  # by more a kernel does not correct the rate that it was told its clock runs at
_STAGE_LIMIT_S = 2.0  # what a guest did before it answered is known soon after, or not at all


class QemuGuest:
    """One transient domain (scenarios.contract.Guest)."""

    def __init__(
        self,
        host: "QemuHost",
        settings: GuestSettings,
        nonce: str,
        disk: disks.AgentDisk | None,
        workload: Workload,
        reserved: bool,
        system: System,
    ) -> None:
        self.cluster = host.cluster
        self.name = self.cluster.next_name()
        self.nonce = nonce
        self.address = self.cluster.next_address()
        self._revision = host.revision
        self._settings = settings
        self._disk = disk
        self._workload = workload
        self._reserved = reserved
        self._link = host.link
        self.links = host.revision.links
        self._is_operators = system.name == "operator"
        self._source = BootSource(
            guest=self.name,
            host=host.link.host,
            agent=host.link.agent,
            folder=self.cluster.work_dir(host.link.host),
            system=system,
            sent=self.cluster.systems.get(system, host.revision.guest),
            settings=host.revision.disk,
            disk=_image_of(disk) if disk is not None else None,
        )
        self._domain: libvirt.virDomain | None = None
        self._requested_s: float | None = None
        self._running_s: float | None = None
        self._answer: Beat | None = None
        self._answered_s: float | None = None
        self._init_seen: tuple[float, float] | None = None
        self._init_thread: threading.Thread | None = None
        self._init_error: contract.ScenarioError | None = None

    @property
    def link(self) -> HostLink:
        """The host that it is on."""
        return self._link

    @property
    def memory_mib(self) -> int:
        return self._settings.memory_mib

    # -- life ---------------------------------------------------------------------------------------------------

    def enter(self) -> None:
        self.cluster.enter(self)

    def prepare(self) -> None:
        self.cluster.observe("expect", nonce=self.nonce)
        if self._is_operators:
            address = self.cluster.cluster.observer.address
            self._observer("leases.keep", own=address, mac=mac_of(self.name), address=self.address)
        self._source.prepare()
        self._own_console(self._link)

    def _own_console(self, link: HostLink) -> None:
        """Libvirt makes a console's file as root, for root alone; where it is there already, it stays whose it is."""
        if link.host.guest_uid < 0:
            path = str(link.host.console_dir / f"{self.name}.log")
            empty = {"offset": 0, "content": "", "mode": 0o600}
            link.agent.call("basics.write_chunk", timeout_s=_CALL_TIMEOUT_S, path=path, **empty)

    def xml(self) -> str:
        """The domain as `start` hands it to libvirt."""
        return domain_xml(self._machine())

    def start(self, *, ledger: bool = False) -> float:
        xml = self.xml()
        if ledger:
            self._watch()
        self._requested_s = self.cluster.now_s()
        self._domain = ask_vmm(
            f"start guest {self.name} on {self._link.name}",
            _START_TIMEOUT_S,
            self._link.connection,
            lambda: self._link.connection.createXML(xml, 0),
        )
        self._running_s = self.cluster.now_s()
        return self._requested_s

    def _watch(self) -> None:
        self._init_thread = threading.Thread(target=self._watch_init, daemon=True, name=f"{self.name}: init")
        self._init_thread.start()

    def fetch(self) -> FetchReport:
        return self._source.fetch(self.cluster.observer, self.cluster.cluster.observer.address)

    def prove_fetched(self) -> str:
        return self._source.prove_fetched(self.cluster.observer)

    def make_cold(self) -> None:
        self._source.make_cold()

    def prove_cold(self) -> float:
        return self._source.prove_cold()

    def stop(self) -> None:
        self._destroy(self._link)
        self._wait_until_gone()
        self._domain = None

    def remove(self) -> None:
        """End it wherever it is; harmless when it is gone. Every host is tried, whatever one of them raises."""
        self._link.agent.call("hypervisors.console.end_wait", timeout_s=_CALL_TIMEOUT_S, path=str(self._console_path()))
        with contextlib.ExitStack() as steps:
            steps.callback(self.cluster.leave, self)
            steps.callback(self.cluster.observe, "forget", nonce=self.nonce)
            for link in self.links:
                path = str(link.host.console_dir / f"{self.name}.log")
                steps.callback(link.agent.call, "volumes.base.remove", timeout_s=_CALL_TIMEOUT_S, path=path)
            steps.callback(self._source.remove)
            if self._is_operators:
                steps.callback(self._observer, "leases.forget", mac=mac_of(self.name))
            steps.callback(self._wait_until_gone)
            for link in self.links:
                steps.callback(self._destroy, link)

    # -- what it does -------------------------------------------------------------------------------------------

    def first_answer(self, *, timeout_s: float) -> Beat:
        self._answer = self._beat(self._hear("first", timeout_s, "did not answer"))
        self._answered_s = self._answer.at_s
        self.cluster.accelerators.add(self._link.host.accelerator)
        return self._answer

    def is_silent(self, port: int) -> bool:
        return self._connected_s(port, 0.0) is None

    def leased_s(self, *, timeout_s: float) -> float:
        mac = mac_of(self.name)
        at_s = self._wait(
            lambda limit_s: self._observer("leases.leased_s", mac=mac, limit_s=limit_s),
            timeout_s,
            "did not ask for an address",
        )
        return float(at_s)

    def first_connection(self, port: int, *, timeout_s: float) -> float:
        self._answered_s = self._wait(
            lambda limit_s: self._connected_s(port, limit_s), timeout_s, f"took no connection at port {port}"
        )
        return self._answered_s

    def _connected_s(self, port: int, limit_s: float) -> float | None:
        address = self.address.partition("/")[0]
        at_s = self._observer("leases.connected_s", address=address, port=port, limit_s=limit_s)
        return None if at_s is None else float(at_s)

    def _observer(self, operation: str, **arguments: Any) -> Any:
        timeout_s = _CALL_TIMEOUT_S + arguments.get("limit_s", 0.0)
        return self.cluster.observer.call(operation, timeout_s=timeout_s, **arguments)

    def stages(self) -> Stages:
        if self._requested_s is None or self._running_s is None or self._answered_s is None:
            raise Failed("farm", f"guest {self.name} was not started, or has not answered")
        if self._init_thread is None:
            raise Failed("farm", f"guest {self.name}: no ledger was kept")
        kernel, userspace = self._stages_by_its_own_clock(self._answer) if self._answer else (None, None)
        return Stages(
            requested_s=self._requested_s,
            process=self._process(),
            vcpu=self._vcpu(),
            running_s=self._running_s,
            kernel=kernel,
            init=self._init(self._init_thread),
            userspace=userspace,
            answer_s=self._answered_s,
        )

    def _moment(self, earliest_s: float, latest_s: float) -> Moment | None:
        """The later time, of the host's clock, unless the clocks' bound makes the time since the request mean nothing.

        It was not before the earlier one.
        """
        assert self._requested_s is not None
        at_s, bound_s = self._link.observed_s(latest_s), self._link.clock.bound_s
        if abs(at_s - self._requested_s) < clocks.SURE_BOUNDS * bound_s:
            return None
        return Moment(at_s, self._link.observed_s(earliest_s) - bound_s, at_s + bound_s)

    def _process(self) -> Moment | None:
        tick: tuple[float, float] | None = self._ledger("started_s", guest=self.name)
        return None if tick is None else self._moment(*tick)

    def _vcpu(self) -> Moment | None:
        real_s = self._link.first_runs.of(self.name, _STAGE_LIMIT_S)
        if real_s is None:
            return None
        at_s = self._ledger("monotonic_s", real_s=real_s)
        return self._moment(at_s, at_s)

    def _init(self, watching: threading.Thread) -> Moment | None:
        watching.join(_STAGE_LIMIT_S)
        if self._init_error is not None:
            raise self._init_error
        return None if self._init_seen is None else self._moment(*self._init_seen)

    def _stages_by_its_own_clock(self, answer: Beat) -> tuple[Moment | None, Moment | None]:
        """When its kernel's clock began and its user space was ready: that long before the answer arrived.

        It sent the answer after it was ready, and read its clock after that: perhaps much later, on a busy host.
        """
        words = f"{_READY_WORD} {self.nonce}"
        told = self._ledger("told", path=str(self._console_path()), words=words, limit_s=_STAGE_LIMIT_S)
        # None, too, when the answer that its clock was read at was lost on its way, or it had to guess its clock's rate
        if told is None or answer.sequence != 0 or self._link.counter_khz is None:
            return None, None
        ready_s, answered_s = (microseconds / 1e6 for microseconds in told)
        began_s, error_s = answer.at_s - answered_s, answered_s * _CLOCK_CORRECTION
        kernel = Moment(began_s, began_s - error_s, answer.at_s - ready_s + error_s)
        userspace = Moment(began_s + ready_s, began_s + ready_s - error_s, answer.at_s)
        return kernel, userspace

    def _ledger(self, operation: str, **arguments: Any) -> Any:
        return self._link.agent.call(f"hypervisors.ledger.{operation}", timeout_s=_CALL_TIMEOUT_S, **arguments)

    def begin_writes(self) -> None:
        self.cluster.observe("begin_writes", nonce=self.nonce)

    def write_times(self, *, timeout_s: float) -> WriteTimes:
        heard = self._hear("write_times", timeout_s, "did not end its write test")
        began_s, ended_s, *times_us, blocks, error = heard
        first_us, first_p99_us, second_us, second_p99_us, read_us = times_us
        return WriteTimes(
            first_us=first_us,
            first_p99_us=first_p99_us,
            second_us=second_us,
            second_p99_us=second_p99_us,
            read_us=read_us,
            began_s=began_s,
            ended_s=ended_s,
            blocks=int(blocks),
            refusal=os.strerror(int(error)) if error else "",
        )

    def disk_times(self, since_s: float, until_s: float) -> Sequence[DiskTime]:
        heard = self.cluster.observe("disk_times", nonce=self.nonce, since_s=since_s, until_s=until_s)
        return [DiskTime(*times) for times in heard]

    def pull(self, *, timeout_s: float) -> tuple[float, float]:
        what, started_s = f"pull the disk of {self.name}", self.cluster.now_s()
        streaming.pull(what, self._link.connection, self._started(), timeout_s=timeout_s)
        return started_s, self.cluster.now_s()

    def disk_read_bytes(self) -> int:
        domain = self._started()
        what, link = f"ask for the reads of {self.name}", self._link
        statistics = ask_vmm(what, _CALL_TIMEOUT_S, link.connection, lambda: domain.blockStats(DISK_TARGET))
        return int(statistics[1])

    def _hear(self, operation: str, timeout_s: float, failing: str) -> Sequence[float]:
        """What the collector has heard of this guest; raises Failed as `_wait` does."""

        def ask_collector(limit_s: float) -> Sequence[float] | None:
            heard = self.cluster.observe(
                operation, timeout_s=limit_s + _CALL_TIMEOUT_S, nonce=self.nonce, limit_s=limit_s
            )
            return cast("Sequence[float] | None", heard)

        return self._wait(ask_collector, timeout_s, failing)

    def _wait(self, ask_for: Callable[[float], Seen | None], timeout_s: float, failing: str) -> Seen:
        """What `ask_for(limit_s)` returns in time.

        Raises Failed when it is late or its VMM has ended: stack, or donor for an image of the operator's; donor when
        its host has no room for its disk or no processor for it; hypervisor when its VMM does not answer either.
        """
        fault: Fault = "donor" if self._is_operators else "stack"
        deadline = time.monotonic() + timeout_s
        looked: tuple[float, float] | None = None  # when first, and for how long it had had no processor by then
        while (left_s := deadline - time.monotonic()) > 0:
            seen = ask_for(min(left_s, _LOOK_EVERY_S))
            if seen is not None:
                return seen
            if not self._is_alive_on(self._link):
                raise Failed(fault, f"guest {self.name} {failing}: it has ended{self._tail()}")
            if self._halted_by_its_disk():
                reason = f"{self._link.name} could not write its disk (is its file system full?)"
                raise Failed("donor", f"guest {self.name} {failing}: {reason}")
            looked = looked or (time.monotonic(), self._starved_s())
        self._require_vmm(f"guest {self.name} {failing}")
        if looked and not _tells(self.console()):
            self._require_processor(f"guest {self.name} {failing}", *looked)
        raise Failed(fault, f"guest {self.name} {failing} within {timeout_s:g} s{self._tail()}")

    def _require_vmm(self, silent: str) -> None:
        """Its VMM answers its monitor, so that it is the guest that is silent; raises Failed."""
        domain, connection = self._started(), self._link.connection
        with contextlib.suppress(Unsupported):  # of what a VMM is asked, this changes nothing
            ask_vmm(silent, _MONITOR_TIMEOUT_S, connection, lambda: domain.ioThreadInfo(libvirt.VIR_DOMAIN_AFFECT_LIVE))

    def _require_processor(self, silent: str, since_s: float, starved_s: float) -> None:
        """Since that time its host let it run for half of it; raises Failed (donor)."""
        took_s, starving_s = time.monotonic() - since_s, self._starved_s() - starved_s
        if starving_s > took_s / 2:
            reason = f"{self._link.name} had no processor for it for {starving_s:.0f} of {took_s:.0f} s"
            raise Failed("donor", f"{silent}: {reason}")

    def _starved_s(self) -> float:
        return float(self._link.agent.call("basics.guest_starved_s", timeout_s=_CALL_TIMEOUT_S, guest=self.name))

    def _halted_by_its_disk(self) -> bool:
        """Whether its hypervisor has halted it, as it does when the host's file system has no room left."""
        state, reason = ask(f"look at guest {self.name}", _CALL_TIMEOUT_S, self._started().state)
        return bool(state == libvirt.VIR_DOMAIN_PAUSED and reason == libvirt.VIR_DOMAIN_PAUSED_IOERROR)

    def beats(self, since_s: float, until_s: float) -> Sequence[Beat]:
        heard = self.cluster.observe("beats", nonce=self.nonce, since_s=since_s, until_s=until_s)
        return [self._beat(beat) for beat in heard]

    def vmm_cpu_s(self) -> float:
        return float(self._link.agent.call("basics.guest_cpu_s", timeout_s=_CALL_TIMEOUT_S, guest=self.name))

    def console(self) -> str:
        parts = []
        for link in self.links:
            path = str(link.host.console_dir / f"{self.name}.log")
            if link.agent.call("basics.sha256_of_file", timeout_s=_CALL_TIMEOUT_S, path=path) is not None:
                parts.append(str(link.agent.call("basics.read_text", timeout_s=_CALL_TIMEOUT_S, path=path)))
        return "".join(parts)

    def known_on(self) -> Sequence[str]:
        return [link.name for link in self.links if find(link.connection, self.name, _CALL_TIMEOUT_S)]

    def found_on(self) -> Sequence[str]:
        return [link.name for link in self.links if self._is_alive_on(link)]

    # -- migration ----------------------------------------------------------------------------------------------

    def migrate(
        self,
        target: "contract.Host",
        *,
        timeout_s: float,
        style: MigrationStyle = _PLAIN_STYLE,
        disk: Disk | None = None,
    ) -> MigrationReport:
        link, copied_to = cast("QemuHost", target).link, cast(disks.AgentDisk | None, disk)
        domain = self._started()
        self.cluster.require_memory(link, self.memory_mib)
        self._own_console(link)
        destination = {libvirt.VIR_MIGRATE_PARAM_DEST_XML: self._xml_for(domain, link, copied_to)}
        parameters = destination | migration.parameters_of(style)
        flags = migration.flags_of(style, copied_to.format if copied_to else None)
        what = f"migrate guest {self.name} from {self._link.name} to {link.name}"
        with SpentByMove(self.name, self._link.agent, link.agent, timeout_s) as spent:
            started_s = self.cluster.now_s()
            migration.run(
                what,
                domain,
                lambda: domain.migrateToURI3(link.migration_uri, parameters, flags),
                timeout_s=timeout_s,
                last_words=self._tail,
                post_copy=style.post_copy,
            )
            finished_s = self.cluster.now_s()
        self._link = link
        self._disk = copied_to or self._disk
        self._domain = find(link.connection, self.name, _CALL_TIMEOUT_S)
        if self._domain is None:
            raise Failed("hypervisor", f"{what}: libvirt says it is done, but the guest is gone{self._tail()}")
        statistics = migration.statistics(what, self._domain)
        if not self._is_alive_on(link):
            raise Failed("hypervisor", f"{what}: the guest broke on arrival{self._tail()}")
        return migration.report(started_s, finished_s, statistics, spent.source_cpu_s, spent.daemon_cpu_s)

    def wait_for_migration(self, phase: contract.MigrationPhase, *, timeout_s: float) -> None:
        migration.wait_for(phase, f"migration of guest {self.name}", self._started(), timeout_s=timeout_s)

    def cancel_migration(self) -> None:
        migration.cancel(f"cancel migration of guest {self.name}", self._started())

    def _xml_for(self, domain: libvirt.virDomain, link: HostLink, disk: disks.AgentDisk | None) -> str:
        xml = ask(f"read guest {self.name}", _CALL_TIMEOUT_S, lambda: domain.XMLDesc(libvirt.VIR_DOMAIN_XML_MIGRATABLE))
        console = link.host.console_dir / f"{self.name}.log"
        return as_taken_over(xml, console, self._emulator_on(link), disk.path if disk else None)

    # -- tools --------------------------------------------------------------------------------------------------

    def _started(self) -> libvirt.virDomain:
        if self._domain is None:
            raise Failed("farm", f"guest {self.name} was not started")
        return self._domain

    def _machine(self) -> Machine:
        host, revision = self._link.host, self._revision
        if self._source.boot is None:
            raise Failed("farm", f"guest {self.name} is not prepared")
        return Machine(
            name=self.name,
            emulator=self._emulator_on(self._link),
            boot=self._source.boot,
            command_line=command_line(
                nonce=self.nonce,
                address=self.address,
                observer=f"{self.cluster.cluster.observer.address}:{self.cluster.port}",
                workload=self._workload,
                has_disk=self._disk is not None,
                extra=revision.guest.kernel_arguments,
                ours=self._source.sent.our_arguments,
                counter_khz=self._link.counter_khz,
            ),
            bridge=host.bridge,
            console=self._console_path(),
            settings=self._settings,
            disk_settings=revision.disk,
            disk=_image_of(self._disk) if self._disk is not None else None,
            accelerator=host.accelerator,
            reserved=self._reserved,
        )

    def _emulator_on(self, link: HostLink) -> str:
        deployed = self._revision.emulator
        return link.host.emulator if deployed is None else str(deployed)

    def _console_path(self) -> Path:
        return self._link.host.console_dir / f"{self.name}.log"

    def _watch_init(self) -> None:
        try:
            self._init_seen = self._link.agent.call(
                "hypervisors.console.wait_for",
                timeout_s=_INIT_LIMIT_S + _CALL_TIMEOUT_S,
                path=str(self._console_path()),
                word=_INIT_WORD,
                limit_s=_INIT_LIMIT_S,
            )
        except contract.ScenarioError as error:
            self._init_error = error

    def _is_alive_on(self, link: HostLink) -> bool:
        return self.name in link.agent.call("basics.guests", timeout_s=_CALL_TIMEOUT_S)

    def _destroy(self, link: HostLink) -> None:
        what = f"stop guest {self.name} on {link.name}"
        domain = find(link.connection, self.name, _CALL_TIMEOUT_S)
        if domain is None:
            return

        def destroy() -> None:
            try:
                domain.destroy()
            except libvirt.libvirtError as error:
                if not is_gone(error):
                    raise

        ask(what, _END_TIMEOUT_S, destroy)

    def _wait_until_gone(self) -> None:
        deadline = time.monotonic() + _END_TIMEOUT_S
        while alive_on := self.found_on():
            if time.monotonic() > deadline:
                raise Failed("hypervisor", f"guest {self.name} does not end on {', '.join(alive_on)}")
            time.sleep(_POLL_S)

    def _beat(self, beat: Sequence[float]) -> Beat:
        at_s, sequence, *counters = beat
        return Beat(at_s, int(sequence), self.nonce, *(int(counter) for counter in counters))

    def _tail(self) -> str:
        """What its console tells of its end, for people."""
        try:
            lines = self.console().split("\n")
        except contract.ScenarioError as error:
            return f"; its console cannot be read: {error}"
        telling = [line.strip() for line in lines if _tells(line)] or [" ".join(lines[-3:])]
        return f"; on its console: {telling[0][:_CONSOLE_CHARACTERS] or 'nothing'}"


def _tells(console: str) -> bool:
    """Whether a guest says there that it cannot go on."""
    return any(sign in console for sign in _TELLING)


def _image_of(disk: disks.AgentDisk) -> DiskImage:
    return DiskImage(disk.path, disk.format, disk.shape.logical_sector, disk.shape.physical_sector)
