"""Holds each scenario's version against the code that decides what its figures mean.

    python -m scenarios.versions check     refuse a scenario that changed and kept its version
    python -m scenarios.versions record    write down the digests of versions that are new

`versions.toml` beside this file has, for each version ever used, the digests of its code in three parts: the
`scenario` (its file with what it imports from here, and the defaults of what it may ask for), the code on `hosts`
that does the work and reads the clocks, and the `guest`. Comments, docstrings and layout do not count. A change that
touches no figure may keep the version when A/A sessions showed it, and whoever looked at that signs for it: an
entry `[[no_effect]]`, signed as `statement` says. It names an A/A session, and what `farm session evidence` told of it
lies in `docs/no-effect/` as a file whose digest is signed, too. What was recorded once may not be edited: git's history
tells.
"""

import ast
import hashlib
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from scenarios.registry import SCENARIOS
from scenarios.strict import BadData, parse_json, parse_toml, read_toml

CHECKOUT = Path(__file__).resolve().parent.parent
NAMESPACE = "no-effect"
_FILE, _SIGNERS, _EVIDENCE = "scenarios/versions.toml", "scenarios/no-effect.signers", "docs/no-effect"
_TIMEOUT_S = 20
_LEVEL = 0.9  # of the intervals of evidence, at least: two one-sided tests at 5 %
_DIGITS = 32
_PARTS = {"scenario": "its own code", "hosts": "the code on hosts", "guest": "the guest"}
# what happens on hosts and where clocks are read; how plans and bundles travel decides no figure
_ON_HOSTS = (
    *("workers/agent.py", "workers/basics.py", "workers/bench.py", "workers/heartbeats.py", "workers/processes.py"),
    *("workers/operations.py", "workers/page_cache.py", "workers/image_server.py", "workers/leases.py"),
    *("workers/hypervisors/*.py", "workers/volumes/*.py", "workers/objectstores/*.py"),
)
# its kernel is Debian's: another one is another image, whose digest identifies the series
_GUEST = ("workers/guest*.py", "workers/guest/*", "workers/disk_image.py", "workers/system_image.py")
# declarations and plumbing that every scenario shares; of these only the defaults decide a figure
_SHARED = {
    *("scenarios.contract", "scenarios.parameters", "scenarios.crossing", "scenarios.strict", "scenarios.recipe"),
    "scenarios.unlimited",
}
_DEFAULTS = ("scenarios/contract.py", "scenarios/recipe.py")


@dataclass(frozen=True)
class NoEffect:
    """Somebody's word that a change of code changes no figure: `session` is an A/A session that showed it."""

    scenario: str
    version: int
    old: str
    new: str
    reason: str
    session: str
    evidence: str  # SHA-256 of the file that tells what was shown
    signer: str
    signature: str

    @property
    def statement(self) -> str:
        """What is signed, with `ssh-keygen -Y sign -n no-effect`."""
        changed = f"{self.scenario} {self.version}: {self.old} -> {self.new}: {self.reason}"
        return f"{changed} (session {self.session}, evidence {self.evidence})\n"

    @property
    def file(self) -> str:
        """Of the evidence, in the checkout."""
        return evidence_file(self.session, self.scenario)


@dataclass(frozen=True)
class Measured:
    """An A/A session, the code that measured it, and the bundle that it brought back."""

    session: str
    harness: str
    bundle: str


@dataclass(frozen=True)
class Equivalence:
    """One series of the canary: a logarithm per session under the new code and the old, and their ratio's interval."""

    metric: str
    params: str
    placement: str
    delta: float
    new: tuple[float, ...]
    old: tuple[float, ...]
    ratio: float
    low: float
    high: float
    shown: bool


@dataclass(frozen=True)
class Evidence:
    """What A/A sessions show of a change: `digest` is the changed code's, as `digest_of` tells it."""

    scenario: str
    version: int
    digest: str
    cluster: str
    old: tuple[Measured, ...]
    new: tuple[Measured, ...]
    level: float  # of the intervals
    metrics: tuple[Equivalence, ...]
    absent: tuple[str, ...]  # judged metrics that none of the sessions has, since there is no such thing on the cluster


@dataclass(frozen=True)
class Recorded:
    """The shape of versions.toml: scenario → version → digest."""

    digest: dict[str, dict[str, str]] = field(default_factory=dict)
    fixed_since: str = ""  # the commit from which on nothing recorded may be edited
    no_effect: tuple[NoEffect, ...] = ()


def evidence_file(session: str, scenario: str) -> str:
    return f"{_EVIDENCE}/{session}-{scenario}.json"


def digest_of(checkout: Path, scenario: str) -> str:
    """SHA-256 over each part of the code that decides what the scenario's figures mean: `part=digest …`."""
    parts = {
        "scenario": set(_modules(checkout, scenario)),
        "hosts": {path for pattern in _ON_HOSTS for path in checkout.glob(pattern)},
        "guest": {path for pattern in _GUEST for path in checkout.glob(pattern) if path.is_file()},
    }
    defaults = "".join(_defaults(checkout / file) for file in _DEFAULTS)
    digests = {name: _digest(checkout, files, defaults if name == "scenario" else "") for name, files in parts.items()}
    return " ".join(f"{name}={digest}" for name, digest in digests.items())


def _digest(checkout: Path, files: Iterable[Path], more: str) -> str:
    digest = hashlib.sha256(more.encode())
    for path in sorted(files):
        digest.update(f"{path.relative_to(checkout)}\0{_meaning(path)}\0".encode())
    return digest.hexdigest()[:_DIGITS]


def check(recorded: Recorded, found: Mapping[str, tuple[int, str]], checkout: Path) -> list[str]:
    """One line for each scenario of `found` (name → version and digest) that may not stay as it is.

    Signers and evidence of entries are the checkout's.
    """
    lines = (_complaint(recorded, name, *its, checkout) for name, its in sorted(found.items()))
    return [line for line in lines if line is not None]


def _complaint(recorded: Recorded, name: str, version: int, digest: str, checkout: Path) -> str | None:
    known = recorded.digest.get(name, {}).get(str(version))
    if known is None:
        return f"{name}: version {version} is not in {_FILE}: run 'python -m scenarios.versions record' and commit it"
    for entry in recorded.no_effect:
        if (entry.scenario, entry.version, entry.old) == (name, version, known):
            if not is_signed(entry, checkout / _SIGNERS):
                return f"{name}: the no_effect entry of {entry.signer!r} is not signed by a signer of {_SIGNERS}"
            if (doubt := _doubt(entry, checkout / entry.file)) is not None:
                return f"{name}: {entry.file} {doubt}"
            known = entry.new
    if known != digest:
        return (
            f"{name}: {_changed_parts(known, digest)} not as in version {version} any more: raise 'version' "
            f"in scenarios/{name}.py and run 'python -m scenarios.versions record', or add a signed no_effect entry "
            f"with the evidence of A/A sessions (old = {known}, new = {digest}; see scenarios/README.md)"
        )
    return None


def _doubt(entry: NoEffect, file: Path) -> str | None:
    """Why the file is no evidence for the entry, or nothing: it is the signed one, of this change, and it shows it."""
    if not file.is_file():
        return "is not there: 'farm session evidence' writes it"
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != entry.evidence:
        return "is not the file that was signed for"
    try:
        told = parse_json(content.decode(errors="replace"), Evidence, source=file.name)
    except BadData as error:
        return f"cannot be read: {error}"
    if (told.scenario, told.version, told.digest) != (entry.scenario, entry.version, entry.new):
        return f"is of {told.scenario} {told.version} with the code {told.digest}"
    if entry.session not in {one.session for one in told.new}:
        return f"does not have session {entry.session}"
    if {one.harness for one in told.new} & {one.harness for one in told.old}:
        return "holds code against itself"
    return _not_shown(told)


def _not_shown(told: Evidence) -> str | None:
    """What does not follow from the values, or is no evidence of no effect."""
    if told.level < _LEVEL:
        return f"tells intervals of {told.level:g}, {_LEVEL:g} is the least"
    declared = {one.name: one.delta for one in SCENARIOS[told.scenario].metrics if one.judged}
    if missing := declared.keys() - {one.metric for one in told.metrics} - set(told.absent):
        return f"says nothing of {', '.join(sorted(missing))}"
    for one in told.metrics:
        if one.metric not in declared or one.delta != declared[one.metric]:
            return f"holds {one.metric} against {one.delta}, which its scenario does not declare"
        if not one.new or not one.old:
            return f"has no values of {one.metric} {one.params}"
        ratio = math.exp(math.fsum(one.new) / len(one.new) - math.fsum(one.old) / len(one.old))
        if not math.isclose(ratio, one.ratio, rel_tol=1e-6) or not one.low <= one.ratio <= one.high:
            return f"tells a ratio of {one.metric} {one.params} that is not its values'"
        if not 1 / (1 + one.delta) <= one.low or not one.high <= 1 + one.delta or not one.shown:
            interval = f"[{one.low:.3f}, {one.high:.3f}] beyond δ = {one.delta:g}"
            return f"does not show that nothing changed: {one.metric} {one.params} {interval}"
    return None


def _changed_parts(known: str, digest: str) -> str:
    """Which of the parts differ, for people."""
    differing = [part.partition("=")[0] for part in digest.split() if part not in known.split()]
    told = [_PARTS[part] for part in differing]
    return " and ".join(told) + (" is" if len(told) == 1 else " are")


def rewritten(now: Recorded, then: Recorded) -> list[str]:
    """One line for each entry that `then` had, an earlier state of the file, and that is another or gone now."""
    return [
        f"{name}: what was recorded for version {version} may not be edited: raise 'version' instead"
        for name, versions in sorted(then.digest.items())
        for version, digest in sorted(versions.items())
        if now.digest.get(name, {}).get(version) != digest
    ]


def earlier(checkout: Path, since: str) -> list[Recorded]:
    """The states of versions.toml in git's history from the commit `since` on; empty where it has no history."""
    try:
        commits = _git(checkout, "rev-list", f"{since}^..HEAD", "--", _FILE).split()
        return [parse_toml(_git(checkout, "show", f"{one}:{_FILE}"), Recorded, source=_FILE) for one in commits]
    except (OSError, subprocess.SubprocessError):  # no git, or a clone that does not go back so far
        return []


def _git(checkout: Path, *arguments: str) -> str:
    command = ["git", "-C", str(checkout), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True).stdout


def is_signed(entry: NoEffect, signers: Path) -> bool:
    """Whether `signature` is the signer's over the statement, by the ssh keys that `signers` allows."""
    with tempfile.NamedTemporaryFile("w", suffix=".sig") as signature:
        signature.write(entry.signature)
        signature.flush()
        arguments = ["-f", str(signers), "-I", entry.signer, "-n", NAMESPACE, "-s", signature.name]
        done = subprocess.run(
            ["ssh-keygen", "-Y", "verify", *arguments],
            input=entry.statement.encode(),
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    return done.returncode == 0


def present(checkout: Path) -> dict[str, tuple[int, str]]:
    """Version and digest of every scenario of this checkout."""
    return {name: (scenario.version, digest_of(checkout, name)) for name, scenario in SCENARIOS.items()}


def with_new_versions(text: str, recorded: Recorded, found: Mapping[str, tuple[int, str]]) -> str:
    """`text` of versions.toml with what it does not have yet; what it has is never changed."""
    new = [(name, *its) for name, its in sorted(found.items()) if str(its[0]) not in recorded.digest.get(name, {})]
    return text + "".join(f"digest.{name}.{version} = {json.dumps(digest)}\n" for name, version, digest in new)


def _modules(checkout: Path, scenario: str) -> Iterable[Path]:
    """The scenario's file and all that it imports from `scenarios`, but for what all of them share."""
    waiting, seen = [f"scenarios.{scenario}"], set(_SHARED)
    while waiting:
        name = waiting.pop()
        path = checkout / f"{name.replace('.', '/')}.py"
        if name in seen or not path.is_file():
            continue
        seen.add(name)
        yield path
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("scenarios"):
                waiting += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]


def _meaning(path: Path) -> str:
    """Python without comments, layout and docstrings; anything else as it stands."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return text
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            del node.body[0]
    return ast.dump(tree)


def _defaults(path: Path) -> str:
    """The values that the file's dataclasses give to fields which nobody sets."""
    if not path.is_file():
        return ""
    return "".join(
        f"{node.name}.{ast.dump(field_)}\n"
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
        for field_ in node.body
        if isinstance(field_, ast.AnnAssign) and field_.value is not None
    )


def main(arguments: list[str]) -> int:
    """Exit status: 0 in order, 1 refused, 2 usage."""
    if arguments not in (["check"], ["record"]):
        print("usage: python -m scenarios.versions check|record", file=sys.stderr)
        return 2
    file = CHECKOUT / _FILE
    try:
        recorded = read_toml(file, Recorded)
    except BadData as error:
        print(f"versions: {error}", file=sys.stderr)
        return 2
    found = present(CHECKOUT)
    if arguments == ["record"]:
        file.write_text(with_new_versions(file.read_text(encoding="utf-8"), recorded, found), encoding="utf-8")
        return 0
    complaints = check(recorded, found, CHECKOUT)
    for then in earlier(CHECKOUT, recorded.fixed_since) if recorded.fixed_since else ():
        complaints += [line for line in rewritten(recorded, then) if line not in complaints]
    for line in complaints:
        print(f"versions: {line}", file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
