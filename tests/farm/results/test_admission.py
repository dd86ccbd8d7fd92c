"""Every way in which a bundle may be wrong has its own reason, and leaves nothing behind but that reason."""

import gzip
import io
import re
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from farm.inventory import SigningKey
from farm.results import unpacking
from farm.results.admission import Rejected
from farm.results.ingest import ingest
from scenarios.crossing import Plan
from tests.helpers.bundles import DECLARED, Draft, a_plan, make_key
from tests.helpers.farmhouse import NOON, Farmhouse


def first_sample(**changes: Any) -> Callable[[Draft], None]:
    return lambda draft: draft.samples[0].update(changes)


def first_outcome(**changes: Any) -> Callable[[Draft], None]:
    return lambda draft: draft.manifest["outcomes"][0].update(changes)


def first_probe(**changes: Any) -> Callable[[Draft], None]:
    return lambda draft: draft.probes[0].update(changes)


def manifest(**changes: Any) -> Callable[[Draft], None]:
    return lambda draft: draft.manifest.update(changes)


def facts(**changes: Any) -> Callable[[Draft], None]:
    return lambda draft: draft.facts.update(changes)


def files(change: Callable[[dict[str, bytes]], object]) -> Callable[[Draft], None]:
    """Change the files after the manifest was made and signed."""

    def spoil(draft: Draft) -> None:
        draft.after_listing = change

    return spoil


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> Callable[[Draft], None]:
    def add(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, target
        tar.addfile(info)

    def spoil(draft: Draft) -> None:
        draft.members = add

    return spoil


def line(text: bytes) -> Callable[[Draft], None]:
    def spoil(draft: Draft) -> None:
        draft.lines = [text]

    return spoil


def many_members(draft: Draft) -> None:
    def add(tar: tarfile.TarFile) -> None:
        for number in range(unpacking.MAX_MEMBERS):
            tar.addfile(tarfile.TarInfo(f"logs/{number}"))

    draft.members = add


def bomb(draft: Draft) -> None:
    def add(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo("logs/zeros")
        info.size = unpacking.MAX_UNPACKED_BYTES
        tar.addfile(info, _Zeros())

    draft.members = add


class _Zeros(io.RawIOBase):
    def read(self, size: int = -1) -> bytes:
        return bytes(size)


def drop(key: str) -> Callable[[Draft], None]:
    return lambda draft: draft.manifest.pop(key)


def nested(depth: int) -> Any:
    return [nested(depth - 1)] if depth else 1


def unsigned(draft: Draft) -> None:
    draft.signed = False


REJECTED: dict[str, tuple[Callable[[Draft], Any], str]] = {
    # the archive
    "absolute path": (member("/etc/cron.d/x"), "'/etc/cron.d/x' is an absolute path"),
    "path that leaves": (member("logs/../../x"), "'logs/../../x' leads out of the bundle"),
    "symbolic link": (member("logs/x", tarfile.SYMTYPE, "/etc/shadow"), "'logs/x' is a link"),
    "hard link": (member("logs/x", tarfile.LNKTYPE, "manifest.json"), "'logs/x' is a link"),
    "device": (member("logs/x", tarfile.CHRTYPE), "'logs/x' is a link, a device"),
    "pipe": (member("logs/x", tarfile.FIFOTYPE), "'logs/x' is a link, a device or another special"),
    "directory that leaves": (member("..", tarfile.DIRTYPE), "leads out of the bundle"),
    "control characters": (member("logs/a\nb"), "is not an acceptable file name"),
    "endless name": (member("logs/" + "x" * 250), "is not an acceptable file name"),
    "a file twice": (member("facts.json"), "'facts.json' is there twice"),
    "a file below a file": (member("facts.json/x"), "'facts.json/x' is there twice"),
    "no name": (member("./"), "is not a file"),
    "too many files": (many_members, "too large: more than 1000 files"),
    "decompression bomb": (bomb, "too large: more than 256 MiB unpacked"),
    # manifest and signature
    "no manifest": (files(lambda found: found.pop("manifest.json")), "has no manifest.json"),
    "unsigned": (unsigned, "unsigned: has no manifest.json.sig"),
    "senseless signature": (files(lambda found: found.update({"manifest.json.sig": b"x"})), "the signature is not one"),
    "manifest changed after signing": (
        files(lambda found: found.update({"manifest.json": found["manifest.json"] + b" "})),
        "the signature is not one of cluster 'acorn'",
    ),
    "not JSON": (files(lambda found: found.update({"manifest.json": b"{"})), "manifest.json: not valid JSON"),
    "not an object": (files(lambda found: found.update({"manifest.json": b"[]"})), "manifest.json: schema None"),
    "another schema": (manifest(schema=2), "manifest.json: schema 2 is unknown, this farm reads 1"),
    "unknown key": (manifest(colour="red"), "manifest.json: colour is unknown"),
    "missing key": (drop("harness"), "manifest.json: harness is missing"),
    "wrong type": (manifest(attempt="1"), "manifest.json: attempt is '1', must be a whole number"),
    "huge number": (manifest(attempt=10**30), "manifest.json: has a number that is too large"),
    "unknown cluster": (manifest(cluster="elm"), "cluster 'elm' is not in the inventory"),
    "another cluster's name": (manifest(cluster="birch"), "signed with a key of cluster 'acorn', not of 'birch'"),
    # the files
    "a file changed": (files(lambda found: found.update({"facts.json": b"{}"})), "'facts.json' has another digest"),
    "a file missing": (files(lambda found: found.pop("logs/session.log")), "'logs/session.log' is listed .* missing"),
    "a file too many": (files(lambda found: found.update({"logs/x": b""})), "'logs/x' is in the bundle and not listed"),
    # the plan
    "unknown session": (manifest(session="s2"), "no plan was ever issued for a session 's2'"),
    "another attempt": (manifest(attempt=2), "never issued as attempt 2 of session 's1'"),
    "another plan": (manifest(plan="0" * 64), "never issued as attempt 1 of session 's1'"),
    "another harness": (manifest(harness="0" * 64), "by another harness than the plan's"),
    # samples
    "sample not JSON": (line(b"{"), "samples.jsonl, line 1: not valid JSON"),
    "sample too long": (line(b'"' + b"x" * 70000 + b'"'), "too large: samples.jsonl"),
    "sample off the schema": (first_sample(colour="red"), "samples.jsonl, line 1: colour is unknown"),
    "sample of another session": (first_sample(session="s2"), "sample 1 is of session 's2', attempt 1"),
    "sample of another attempt": (first_sample(attempt=2), "sample 1 is of session 's1', attempt 2"),
    "unknown revision": (first_sample(revision="0" * 64), "sample 1: revision '0+' is not in the plan"),
    "unknown scenario": (first_sample(scenario="dance"), "sample 1: scenario 'dance' version 1 is not in the plan"),
    "unknown version": (first_sample(version=2), "sample 1: scenario 'boot' version 2 is not in the plan"),
    "undeclared metric": (first_sample(metric="joy"), "sample 1: scenario 'boot' declares no metric 'joy'"),
    "another unit": (first_sample(unit="s"), "sample 1: answer_ms is in 's', not in 'ms'"),
    "not a number": (first_sample(value=float("nan")), "samples.jsonl, line 1: not valid JSON: NaN is not JSON"),
    "endless": (first_sample(value=float("inf")), "Infinity is not JSON"),
    "overflows": (line(b'{"value": 1e999}'), "samples.jsonl, line 1: has a number that is not finite"),
    "value as text": (first_sample(value="1"), "samples.jsonl, line 1: value is '1', must be a number"),
    "block out of range": (first_sample(block=2), "sample 1: block 2 is not in the plan"),
    "negative block": (first_sample(block=-1), "sample 1: block -1 is not in the plan"),
    "round out of range": (first_sample(round=1), "sample 1: round 1 is not in the plan"),
    "order out of range": (first_sample(order=-1), "sample 1: order -1 is out of range"),
    "foreign host": (first_sample(hosts={"host": "h9"}), "sample 1: host host 'h9' is not in the plan"),
    "void without a reason": (first_sample(valid=False), "sample 1: valid and void_reason contradict"),
    "valid with a reason": (first_sample(void_reason="no answer"), "sample 1: valid and void_reason contradict"),
    "no time": (first_sample(time="noon"), "sample 1: 'noon' is not a time"),
    "time without a zone": (first_sample(time="2026-01-01T00:00:00"), "is not a time with its zone"),
    "a sample twice": (
        lambda draft: draft.samples.append(draft.samples[0]),
        "sample 19 is there twice: boot answer_ms",
    ),
    "half a character": (first_sample(params={"a": "\ud800"}), "has text that is not Unicode"),
    "NUL": (first_sample(params={"a": "\0"}), "has text that is not Unicode, or has a NUL"),
    # outcomes, builds, facts
    "outcome of an unknown revision": (first_outcome(revision="0" * 64), "outcome 1: revision '0+' is not in the plan"),
    "outcome of an unknown scenario": (first_outcome(scenario="dance"), "outcome 1: scenario 'dance' version 1"),
    "unknown outcome": (first_outcome(outcome="splendid"), r"outcomes\[0\].outcome is 'splendid', not one of"),
    "failed by nobody": (first_outcome(outcome="failed", reason="x"), "outcome 1 is failed, with fault None"),
    "measured, with a fault": (first_outcome(fault="stack"), "outcome 1 is measured, with fault stack"),
    "unsupported without a reason": (
        first_outcome(outcome="unsupported"),
        "outcome 1 is unsupported, without a reason",
    ),
    "valid samples of a failed cell": (
        first_outcome(outcome="failed", fault="stack", reason="x"),
        "sample 1 is valid, but its cell is not measured",
    ),
    "build of an unknown revision": (
        lambda draft: draft.manifest["builds"][0].update(revision="0" * 64),
        "build of revision '0+', which the plan does not have",
    ),
    "no epoch": (facts(declared={}), "facts.json: declared is empty"),
    "facts off the schema": (facts(colour="red"), "facts.json: colour is unknown"),
    "two fidelities": (manifest(fidelity="hardware"), "fidelity is hardware in the manifest and emulated in the facts"),
    "unknown fidelity": (manifest(fidelity="splendid"), "fidelity is 'splendid', not one of"),
    "nested facts": (facts(load={"deep": nested(30)}), "facts.json: nested more than 20 deep"),
    # limits
    "unknown limit": (first_probe(kind="joy"), "limits.jsonl, line 1: kind is 'joy', not one of"),
    "limit off the schema": (first_probe(unit="GiB/s"), "limits.jsonl, line 1: unit is unknown"),
    "limit of nothing": (first_probe(value=0), "probe 1: disk write is 0"),
    "endless limit": (first_probe(value=float("inf")), "Infinity is not JSON"),
    "limit of a foreign host": (first_probe(at="h9"), "probe 1: disk write of 'h9'"),
    "disk with two ends": (first_probe(to="h2"), "probe 1: disk write to 'h2'"),
    "link with one end": (first_probe(kind="network"), "probe 1: network to None"),
    "round trip to nowhere": (first_probe(kind="round trip"), "probe 1: round trip to None"),
    "link to itself": (first_probe(kind="network", to="h1"), "probe 1: network to 'h1'"),
    "limit after the last block": (first_probe(block=3), "probe 1: block 3 is not in the plan"),
    "limit at no time": (first_probe(time="noon"), "probe 1: 'noon' is not a time"),
    "a limit twice": (lambda draft: draft.probes.append(draft.probes[0]), "probe 4 is there twice: disk write at 'h1'"),
    "no time of start": (manifest(started="early"), "started: 'early' is not a time"),
}


@pytest.mark.parametrize("case", REJECTED)
def test_wrong_bundle_is_rejected_whole(farmhouse: Farmhouse, plan: Plan, case: str) -> None:
    spoil, reason = REJECTED[case]
    draft = Draft(plan)
    spoil(draft)
    before = farmhouse.rows()

    result = farmhouse.ingest(farmhouse.pack(draft))

    assert not result.accepted
    assert re.search(reason, result.reason or ""), result.reason
    assert_only_a_rejection_more(farmhouse, before, result.reason)


def assert_only_a_rejection_more(farmhouse: Farmhouse, before: dict[str, Any], reason: str | None) -> None:
    after = farmhouse.rows()
    bundles = after.pop("bundle")
    assert after == {table: rows for table, rows in before.items() if table != "bundle"}
    assert [(row["accepted"], row["reason"], row["visibility"]) for row in bundles] == [(False, reason, "private")]
    assert [path.name for path in farmhouse.settings.bundles_dir.iterdir()] == [".turn"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a readable .tar.gz"),
        (b"hello" * 1000, "not a readable .tar.gz"),
        (gzip.compress(b""), "not a readable .tar.gz"),
        (gzip.compress(b"hello" * 1000), "not a readable .tar.gz"),
        (gzip.compress(bytes(10240)), "has no manifest.json"),
        (gzip.compress(b"hello" * 1000)[:-20], "not a readable .tar.gz"),
    ],
    ids=["empty", "text", "empty gzip", "gzip of text", "empty tar", "cut short"],
)
def test_what_is_no_archive_is_rejected(farmhouse: Farmhouse, plan: Plan, content: bytes, reason: str) -> None:
    file = farmhouse.incoming / "x"
    file.write_bytes(content)
    before = farmhouse.rows()

    result = farmhouse.ingest(file)

    assert (result.accepted, result.session) == (False, None)
    assert reason in (result.reason or "")
    assert_only_a_rejection_more(farmhouse, before, result.reason)


def test_upload_above_the_limit_is_not_even_opened(farmhouse: Farmhouse, plan: Plan) -> None:
    file = farmhouse.incoming / "x"
    with file.open("wb") as sparse:
        sparse.truncate(unpacking.MAX_UPLOAD_BYTES + 1)

    assert farmhouse.ingest(file).reason == "too large: more than 64 MiB packed"


@pytest.mark.parametrize("state", ["queued", "cancelled", "failed"])
def test_plan_that_was_withdrawn_takes_no_answer(farmhouse: Farmhouse, state: str) -> None:
    plan = farmhouse.issue(a_plan(farmhouse.inventory["acorn"]), state=state)

    result = farmhouse.ingest(farmhouse.pack(Draft(plan)))

    assert result.reason == f"session 's1' is {state}: its plan is no longer out"
    assert (result.session, result.attempt) == ("s1", 1)  # the signature held: it may be believed who sent it


def test_second_answer_is_rejected(farmhouse: Farmhouse, plan: Plan) -> None:
    assert farmhouse.ingest(farmhouse.pack(Draft(plan))).accepted
    other = Draft(plan, value=lambda *_: 1.0)
    first = farmhouse.rows()

    result = farmhouse.ingest(farmhouse.pack(other, name="second.tar.gz"))

    assert result.reason == "session 's1' was answered already"
    after = farmhouse.rows()
    assert [row for row in after["bundle"] if row["accepted"]] == first.pop("bundle")
    assert {table: rows for table, rows in after.items() if table != "bundle"} == first


def test_bundle_signed_by_another_cluster_says_whose_key_it_was(farmhouse: Farmhouse, plan: Plan) -> None:
    result = farmhouse.ingest(farmhouse.pack(Draft(plan), "birch"))

    assert result.reason == "signed with a key of cluster 'birch', not of 'acorn'"


def test_session_of_another_cluster_takes_no_answer_from_this_one(farmhouse: Farmhouse) -> None:
    birch = farmhouse.issue(a_plan(farmhouse.inventory["birch"]))
    draft = Draft(birch)
    draft.manifest["cluster"] = "acorn"

    assert farmhouse.ingest(farmhouse.pack(draft)).reason == "comes from cluster 'acorn', was sent to 'birch'"


def test_key_that_nobody_lists_is_rejected(farmhouse: Farmhouse, plan: Plan, tmp_path: Path) -> None:
    stranger = make_key(tmp_path / "stranger")

    result = farmhouse.ingest(Draft(plan).pack(stranger, farmhouse.incoming / "x"))

    assert result.reason == "the signature is not one of cluster 'acorn' over this manifest"


def test_cluster_whose_key_cannot_be_read_is_named_until_it_can(farmhouse: Farmhouse, plan: Plan) -> None:
    file = farmhouse.pack(Draft(plan))
    public = farmhouse.settings.home / "keys" / "acorn.pub"
    hidden = public.rename(public.with_suffix(".away"))

    assert "no signing key of cluster 'acorn' can be read" in (farmhouse.ingest(file).reason or "")

    hidden.rename(public)
    assert farmhouse.ingest(file).accepted
    assert [(row["accepted"], row["reason"]) for row in farmhouse.rows()["bundle"]] == [(True, None)]


@pytest.mark.parametrize(
    ("valid_from", "valid_until", "accepted"),
    [
        (None, None, True),
        (NOON, NOON + timedelta(hours=1), True),
        (NOON - timedelta(hours=2), NOON, False),
        (NOON + timedelta(seconds=1), None, False),
        (NOON.replace(tzinfo=None), None, True),
    ],
    ids=["always", "from now on", "until now", "not yet", "without a zone is UTC"],
)
def test_key_counts_at_its_times_only(
    farmhouse: Farmhouse, plan: Plan, valid_from: datetime | None, valid_until: datetime | None, accepted: bool
) -> None:
    key = SigningKey(file="keys/acorn.pub", valid_from=valid_from, valid_until=valid_until)
    inventory = {**farmhouse.inventory, "acorn": replace(farmhouse.inventory["acorn"], signing_key=(key,))}
    file = farmhouse.pack(Draft(plan))

    result = ingest(farmhouse.engine, farmhouse.settings, inventory, file, NOON, DECLARED)

    assert result.accepted == accepted
    assert accepted or result.reason == "signed with a key of cluster 'acorn' that is not valid at 2026-01-01 12:00 UTC"


def test_new_key_beside_the_old_one_counts_too(farmhouse: Farmhouse, plan: Plan, tmp_path: Path) -> None:
    new = make_key(tmp_path / "new")
    keys = (SigningKey(file="keys/acorn.pub"), SigningKey(public=new.with_suffix(".pub").read_text()))
    inventory = {"acorn": replace(farmhouse.inventory["acorn"], signing_key=keys)}
    file = Draft(plan).pack(new, farmhouse.incoming / "x")

    assert ingest(farmhouse.engine, farmhouse.settings, inventory, file, NOON, DECLARED).accepted


def test_signature_for_another_purpose_is_rejected(farmhouse: Farmhouse, plan: Plan) -> None:
    def sign_as_a_git_commit(found: dict[str, bytes]) -> None:
        arguments = ["-Y", "sign", "-f", str(farmhouse.key()), "-n", "git"]
        signed = subprocess.run(
            ["ssh-keygen", *arguments], input=found["manifest.json"], capture_output=True, check=True, timeout=20
        )
        found["manifest.json.sig"] = signed.stdout

    draft = Draft(plan)
    draft.after_listing = sign_as_a_git_commit

    reason = farmhouse.ingest(farmhouse.pack(draft)).reason
    assert reason == "the signature is not one of cluster 'acorn' over this manifest"


def test_reason_is_one_printable_line_however_hostile_the_bundle() -> None:
    reason = str(Rejected("a\nb\x1b[31m" + "c" * 1000))

    assert reason.startswith("a b\N{REPLACEMENT CHARACTER}[31mc")
    assert len(reason) == 300
