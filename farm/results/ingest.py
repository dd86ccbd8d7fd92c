"""Takes a session's bundle into the database: all of it in one transaction, or none of it.

The order makes a crash at any moment harmless: the bundle is unpacked into a folder of its own and checked,
the folder gets its name while the transaction is open, and the commit makes it count. Whatever an interrupted
ingest left is replaced or removed by the next one.
"""

import contextlib
import datetime
import fcntl
import hashlib
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session as Transaction

from farm.inventory import Cluster
from farm.results import admission, builds
from farm.results.admission import Content, Declared, Issued, Rejected
from farm.results.database import reading, transact
from farm.results.identity import epoch_of, series_identity
from farm.results.signatures import check_signature
from farm.results.tables import Bundle, OutcomeRow, ProbeRow, SampleRow, Series, Session
from farm.results.unpacking import MAX_UPLOAD_BYTES, unpack
from farm.settings import Settings
from scenarios.crossing import Outcome, Plan, Probe, Sample, digest_of, to_data
from scenarios.registry import SCENARIOS
from scenarios.strict import from_data

_TURN_TIMEOUT_S = 120.0
_UNPACKING = ".unpacking-"


@dataclass(frozen=True)
class IngestResult:
    """What became of one uploaded file. `session` and `attempt` are None where it cannot be believed."""

    accepted: bool
    reason: str | None  # why it was rejected, one line
    session: str | None
    attempt: int | None


def ingest(
    engine: Engine,
    settings: Settings,
    inventory: Mapping[str, Cluster],
    file: Path,
    now: datetime.datetime,
    declared: Declared | None = None,
) -> IngestResult:
    """Admit the bundle in `file` (a .tar.gz as a worker sent it) and store it, or reject it whole.

    Accepted: its samples, outcomes and files are there, and its session is done. Rejected: a bundle row says
    why, and the session is as it was, for the caller to decide on. The same file may be handed in again and
    again; `file` itself stays where it is. `declared` is what scenarios measure, by default `SCENARIOS`.

    Raises OSError, subprocess.SubprocessError or sqlalchemy.exc.SQLAlchemyError where the farm is in trouble:
    nothing has happened then, and it may be tried again.
    """
    known = admission.declared_metrics(SCENARIOS.values()) if declared is None else declared
    settings.bundles_dir.mkdir(parents=True, exist_ok=True)
    with _own_turn(settings.bundles_dir), _scratch_folder(settings.bundles_dir) as folder:
        sha256 = _sha256(file)
        earlier = _accepted(engine, sha256)
        if earlier is not None:
            return IngestResult(True, None, earlier.session, earlier.attempt)
        content: Content | None = None
        try:
            content = _read(file, folder, settings, inventory, now)
            return transact(engine, _Storing(content, folder, settings.bundles_dir, sha256, known, now))
        except Rejected as rejection:
            return transact(engine, _Rejecting(content, str(rejection), settings, sha256, now))


def _read(
    file: Path, folder: Path, settings: Settings, inventory: Mapping[str, Cluster], now: datetime.datetime
) -> Content:
    """Unpack the bundle and read it; nothing but the manifest is looked into before its signature holds."""
    if file.stat().st_size > MAX_UPLOAD_BYTES:
        raise Rejected(f"too large: more than {MAX_UPLOAD_BYTES >> 20} MiB packed")
    with file.open("rb") as archive:
        digests = unpack(archive, folder)
    for name, problem in ((admission.MANIFEST, "has no"), (admission.SIGNATURE, "unsigned: has no")):
        if name not in digests:
            raise Rejected(f"{problem} {name}")
    manifest = admission.read_manifest((folder / admission.MANIFEST).read_bytes())
    check_signature(
        folder / admission.MANIFEST, folder / admission.SIGNATURE, manifest.cluster, inventory, settings.home, now
    )
    admission.check_files(manifest, digests)
    samples = admission.read_samples((folder / admission.SAMPLES).read_bytes())
    facts = admission.read_facts((folder / admission.FACTS).read_bytes())
    limits = folder / admission.LIMITS
    probes = admission.read_probes(limits.read_bytes()) if admission.LIMITS in digests else ()
    return Content(manifest, samples, facts, probes)


@dataclass(frozen=True)
class _Storing:
    """The transaction of an accepted bundle."""

    content: Content
    folder: Path
    bundles_dir: Path
    sha256: str
    declared: Declared
    now: datetime.datetime

    def __call__(self, transaction: Transaction) -> IngestResult:
        manifest = self.content.manifest
        session = transaction.scalar(select(Session).where(Session.id == manifest.session).with_for_update())
        if session is None or session.plan is None or session.plan_digest is None:
            raise Rejected(f"no plan was ever issued for a session {manifest.session!r}")
        plan = from_data(session.plan, Plan, source=f"plan of session {session.id}")
        admission.check_answer(manifest, Issued(session.state, session.attempt, session.plan_digest, plan))
        admission.check_content(self.content, plan, self.declared)
        self._store(transaction, session, plan)
        self._place_folder(session)
        return IngestResult(True, None, session.id, manifest.attempt)

    def _store(self, transaction: Transaction, session: Session, plan: Plan) -> None:
        manifest = self.content.manifest
        transaction.merge(
            Bundle(
                sha256=self.sha256,
                session=session.id,
                attempt=manifest.attempt,
                accepted=True,
                reason=None,
                manifest=to_data(manifest),
                facts=to_data(self.content.facts),
                fidelity=manifest.fidelity,
                received_at=self.now,
                **_owner(session),
            )
        )
        series = _SeriesBook(transaction)
        for sample in self.content.samples:
            identity = series_identity(session, plan, self.content.facts, sample)
            transaction.add(_sample_row(sample, series.number(identity), _owner(session)))
        transaction.add_all([_outcome_row(outcome, session) for outcome in manifest.outcomes])
        builds.remember(transaction, session, plan.builds, manifest, self.now)
        epoch = epoch_of(self.content.facts)
        transaction.add_all([_probe_row(probe, session, epoch) for probe in self.content.probes])
        session.state = "done"
        session.finished_at = self.now
        session.message = session.fault = None
        transaction.flush()

    def _place_folder(self, session: Session) -> None:
        """A folder of that name is an interrupted ingest's, since the session was not answered."""
        target = self.bundles_dir / f"{session.id}-{self.content.manifest.attempt}"
        if not self.folder.exists():  # the transaction is tried again, and this has been done
            return
        if target.exists():
            shutil.rmtree(target)
        self.folder.rename(target)


@dataclass(frozen=True)
class _Rejecting:
    """The transaction of a rejected bundle. It belongs to its session only if its signature held."""

    content: Content | None
    reason: str
    settings: Settings
    sha256: str
    now: datetime.datetime

    def __call__(self, transaction: Transaction) -> IngestResult:
        manifest = self.content.manifest if self.content else None
        session = transaction.get(Session, manifest.session) if manifest else None
        farm = self.settings.farm
        owner = _owner(session) if session else {"tenant": farm.tenant, "account": farm.account}
        known, attempt = (session.id, manifest.attempt) if session and manifest else (None, None)
        transaction.merge(
            Bundle(
                sha256=self.sha256,
                session=known,
                attempt=attempt,
                accepted=False,
                reason=self.reason,
                manifest=None,
                facts=None,
                fidelity=None,
                received_at=self.now,
                **{**owner, "visibility": "private"},
            )
        )
        return IngestResult(False, self.reason, known, attempt)


class _SeriesBook:
    """Numbers of series, made when first seen."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._numbers: dict[str, int] = {}

    def number(self, identity: Mapping[str, Any]) -> int:
        key = digest_of(dict(identity))
        if key not in self._numbers:
            self._numbers[key] = self._known(key) or self._new(key, identity)
        return self._numbers[key]

    def _known(self, key: str) -> int | None:
        return self._transaction.scalar(select(Series.id).where(Series.key == key))

    def _new(self, key: str, identity: Mapping[str, Any]) -> int:
        series = Series(key=key, **identity)
        self._transaction.add(series)
        self._transaction.flush()
        return series.id


def _sample_row(sample: Sample, series: int, owner: Mapping[str, str]) -> SampleRow:
    return SampleRow(
        session=sample.session,
        series=series,
        block=sample.block,
        round=sample.round,
        attempt=sample.attempt,
        order=sample.order,
        revision=sample.revision,
        value=sample.value,
        hosts=sample.hosts,
        warm_up=sample.warm_up,
        valid=sample.valid,
        void_reason=sample.void_reason,
        taken_at=datetime.datetime.fromisoformat(sample.time),
        **owner,
    )


def _outcome_row(outcome: Outcome, session: Session) -> OutcomeRow:
    return OutcomeRow(session=session.id, cluster=session.cluster, **to_data(outcome), **_owner(session))


def _probe_row(probe: Probe, session: Session, epoch: str) -> ProbeRow:
    return ProbeRow(
        session=session.id,
        cluster=session.cluster,
        epoch=epoch,
        kind=probe.kind,
        at=probe.at,
        to=probe.to,
        value=probe.value,
        block=probe.block,
        taken_at=datetime.datetime.fromisoformat(probe.time),
        **_owner(session),
    )


def _owner(session: Session) -> dict[str, str]:
    return {"tenant": session.tenant, "account": session.account, "visibility": session.visibility}


def _accepted(engine: Engine, sha256: str) -> Bundle | None:
    with reading(engine) as transaction:
        return transaction.scalar(select(Bundle).where(Bundle.sha256 == sha256, Bundle.accepted))


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


@contextlib.contextmanager
def _own_turn(bundles_dir: Path) -> Iterator[None]:
    """One ingest at a time, among all processes; the kernel ends the turn of one that was killed."""
    with (bundles_dir / ".turn").open("w") as lock:
        give_up_at = time.monotonic() + _TURN_TIMEOUT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up_at:
                    raise TimeoutError(f"another ingest holds {lock.name} for {_TURN_TIMEOUT_S:.0f} s") from None
                time.sleep(0.02)
        yield


@contextlib.contextmanager
def _scratch_folder(bundles_dir: Path) -> Iterator[Path]:
    """A folder to unpack into; those of killed ingests are removed, as it is our turn now."""
    for left_over in bundles_dir.glob(f"{_UNPACKING}*"):
        shutil.rmtree(left_over)
    folder = Path(tempfile.mkdtemp(prefix=_UNPACKING, dir=bundles_dir))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
