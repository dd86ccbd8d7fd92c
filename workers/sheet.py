"""Where a scenario's samples are written: cells that are valid or void together, and the outcome of each."""

import contextlib
import datetime
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from scenarios.contract import Failed, Fault, Metric, Scenario, ScenarioError, Unsupported, WorkNotProven
from scenarios.crossing import Outcome, OutcomeName, Sample

_LONGEST_TEXT = 2000


@dataclass(frozen=True)
class Place:
    """Where in the session a round stands."""

    session: str
    attempt: int
    block: int
    round: int
    order: int
    revision: str
    warm_up: bool = False


@dataclass
class OpenCell:
    """One set of parameters of one scenario in one round (scenarios.contract.Cell)."""

    metrics: Mapping[str, Metric]
    params: dict[str, str]
    hosts: dict[str, str]
    values: list[tuple[str, float, str]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    checks: dict[bool, list[Callable[[], None]]] = field(default_factory=lambda: {True: [], False: []})
    error: ScenarioError | None = None

    def record(self, metric: str, value: float) -> None:
        if metric not in self.metrics:
            raise KeyError(f"metric {metric!r} is not declared by the scenario")
        if not math.isfinite(value):
            raise WorkNotProven(f"{metric} is {value}, not a number")
        self.values.append((metric, value, _now()))

    def prove(self, held: bool, reason: str) -> None:
        if not held:
            raise WorkNotProven(reason)

    def verify_later(self, check: Callable[[], None], *, deployed: bool = True) -> None:
        self.checks[deployed].append(check)

    def evidence(self, text: str) -> None:
        self.lines.append(text)

    def verify(self, deployed: bool) -> None:
        """Run, once, the deferred checks that need the deployment, or those that do not, up to the first that fails."""
        checks, self.checks[deployed] = self.checks[deployed], []
        for check in checks:
            if self.error is not None:
                return
            try:
                check()
            except ScenarioError as error:
                self.error = error
            except Exception as error:  # noqa: BLE001  a thread's error must not be lost
                self.error = Failed("farm", f"verification broke: {error!r}")


class RoundSheet:
    """All cells of one scenario in one round (scenarios.contract.Sheet).

    `params` stand in every cell: what identifies the way in which the scenario was asked. `blame` tells whose fault
    an error is that its place blames somebody else for.
    """

    def __init__(
        self,
        scenario: Scenario,
        place: Place,
        params: Mapping[str, str] = MappingProxyType({}),
        blame: Callable[[Failed], Failed] = lambda error: error,
    ) -> None:
        self._blame = blame
        self.scenario = scenario
        self.place = place
        self.params = dict(params)
        self.cells: list[OpenCell] = []
        self._metrics = {metric.name: metric for metric in scenario.metrics}

    @contextlib.contextmanager
    def cell(self, *, hosts: Mapping[str, str], **params: str) -> Iterator[OpenCell]:
        cell = OpenCell(self._metrics, {**self.params, **params}, dict(hosts))
        self.cells.append(cell)
        try:
            yield cell
        except ScenarioError as error:
            cell.error = error
        except Exception as error:
            cell.error = Failed("farm", f"the scenario broke: {error!r}")
            raise

    def fail(self, error: ScenarioError, hosts: Mapping[str, str]) -> None:
        """The scenario could not begin, or broke outside any cell."""
        self.cells.append(OpenCell(self._metrics, self.params, dict(hosts), error=error))

    def distrust(self, hosts: Mapping[str, str]) -> None:
        """Void what these hosts took part in, by fault of their donor, for the reason that is given for each."""
        for cell in self.cells:
            reasons = [hosts[host] for host in cell.hosts.values() if host in hosts]
            if reasons and cell.error is None:
                cell.error = Failed("donor", reasons[0])

    def samples(self) -> list[Sample]:
        return [sample for cell in self.cells for sample in self._samples_of(cell)]

    def outcomes(self) -> list[Outcome]:
        return [self._outcome_of(cell) for cell in self.cells]

    def _samples_of(self, cell: OpenCell) -> list[Sample]:
        place, error = self.place, self._error_of(cell)
        return [
            Sample(
                session=place.session,
                block=place.block,
                round=place.round,
                attempt=place.attempt,
                order=place.order,
                revision=place.revision,
                scenario=self.scenario.name,
                version=self.scenario.version,
                metric=metric,
                unit=self._metrics[metric].unit,
                value=value,
                params=cell.params,
                hosts=cell.hosts,
                warm_up=place.warm_up,
                valid=cell.error is None,
                void_reason=_told(error),
                time=time,
            )
            for metric, value, time in cell.values
        ]

    def _error_of(self, cell: OpenCell) -> ScenarioError | None:
        return self._blame(cell.error) if isinstance(cell.error, Failed) else cell.error

    def _outcome_of(self, cell: OpenCell) -> Outcome:
        error = self._error_of(cell)
        outcome, fault = classify(error)
        return Outcome(
            revision=self.place.revision,
            scenario=self.scenario.name,
            version=self.scenario.version,
            params=cell.params,
            block=self.place.block,
            round=self.place.round,
            outcome=outcome,
            fault=fault,
            reason=_told(error),
            evidence=[plain(line) for line in cell.lines],
        )


def plain(text: str) -> str:
    """Somebody else's words as one line that every reader takes: printable, and no longer than needed."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:_LONGEST_TEXT]).strip()


def _told(error: ScenarioError | None) -> str | None:
    return None if error is None else plain(str(error))


def classify(error: ScenarioError | None) -> tuple[OutcomeName, Fault | None]:
    """What an error means for its cell. Work that is not proven is our failure to show it, hence the farm's."""
    if error is None:
        return "measured", None
    if isinstance(error, Unsupported):
        return "unsupported", None
    if isinstance(error, Failed):
        return "failed", error.fault
    return "failed", "farm"


class Verification:
    """The deferred checks of a round, at work side by side: most of it is waiting; nothing is measured meanwhile."""

    def __init__(self, sheets: Sequence[RoundSheet]) -> None:
        """Start them."""
        self.sheets = sheets
        cells = [cell for sheet in sheets for cell in sheet.cells]
        self._threads = {
            deployed: [threading.Thread(target=cell.verify, args=(deployed,), daemon=True) for cell in cells]
            for deployed in (True, False)
        }
        for thread in (*self._threads[True], *self._threads[False]):
            thread.start()

    def wait_for_deployed(self) -> None:
        """Until no check needs the deployment any more."""
        for thread in self._threads[True]:
            thread.join()

    def wait(self) -> None:
        """Until all have ended; every check has deadlines of its own."""
        self.wait_for_deployed()
        for thread in self._threads[False]:
            thread.join()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat()
