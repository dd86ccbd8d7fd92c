"""The farm's own pip: what would be installed, and exactly these wheels unpacked. No package runs for it."""

import hashlib
import json
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from scenarios.contract import Failed
from workers import room

PIP_TIMEOUT_S = 300.0
ALWAYS_THERE = "pip"  # a package that every index has

_SILENCE = re.compile(
    "Could not fetch URL|Retrying \\(|ReadTimeoutError|HTTP error [0-9]|IncompleteRead|DO NOT MATCH THE HASHES"
)
_PINNED = re.compile(r"([a-z0-9][a-z0-9-]*)==([A-Za-z0-9][A-Za-z0-9.!+_-]*) --hash=sha256:([0-9a-f]{64})")
_VERSIONS = re.compile(r"\(from versions: ([^()]*,[^()]*)\)")


@dataclass(frozen=True)
class Wheel:
    """One package as it is installed; `name` in its normal form.

    One that is here already has a `file`; if it was built here, it says what it `needs`.
    """

    name: str
    version: str
    sha256: str
    file: Path | None = None
    needs: tuple[str, ...] = ()

    @property
    def pinned(self) -> str:
        """As a lock has it."""
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}"

    @property
    def requirement(self) -> str:
        """As pip takes it."""
        return self.pinned if self.file is None else f"{self.file} --hash=sha256:{self.sha256}"


@dataclass(frozen=True)
class Pip:
    """The farm's own pip; it sees pins only, never text of a check-in."""

    home: Path

    @property
    def _wheels(self) -> Path:
        """What set-up has made of packages that no index has as wheels."""
        return self.home / "cache" / "wheels"

    def made_here(self) -> dict[str, str]:
        """File → SHA-256 of these: whoever takes them another time makes another choice."""
        return {file.name: _digest_of(file) for file in sorted(self._wheels.glob("*.whl"))}

    def resolve(self, requirements: Sequence[str], here: Sequence[Wheel] = ()) -> list[Wheel]:
        """What would be installed, sorted by name, with the wheels that are here already.

        Raises Failed: stack where an index that does answer has no such packages, or none that go together; else farm.
        """
        if not requirements and not here:
            return []
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.json"
            options = ["install", "--dry-run", "--ignore-installed", "--report", str(report)]
            files = [str(wheel.file) for wheel in here]
            try:
                self._fetch([*requirements, *files], options, " and ".join(requirements[:1]))
            except Failed as error:
                self._blame_index_first(error)
                raise
            found = json.loads(report.read_text())["install"]
        own = {wheel.name for wheel in here}
        wheels = [
            Wheel(
                normal(item["metadata"]["name"]),
                item["metadata"]["version"],
                _sha256_of(item["download_info"]),
            )
            for item in found
            if normal(item["metadata"]["name"]) not in own
        ]
        return sorted([*wheels, *here], key=lambda wheel: wheel.name)

    def install(self, wheels: Sequence[Wheel], target: Path) -> None:
        """Unpack exactly these wheels into `target`; raises Failed."""
        if wheels:
            requirements = [wheel.requirement for wheel in wheels]
            options = ["install", "--no-warn-script-location", "--no-deps", "--require-hashes", "--target", str(target)]
            self._fetch(requirements, options, "packages")

    def download(self, locked: Mapping[str, str], target: Path) -> None:
        """The wheels of these packages and versions, and of no others, into `target`; raises Failed as `resolve`."""
        pins = [f"{name}=={version}" for name, version in locked.items()]
        try:
            self._fetch(pins, ["download", "--no-deps", "--dest", str(target)], "the lock")
        except Failed as error:
            self._blame_index_first(error)
            raise

    def _blame_index_first(self, error: Failed) -> None:
        """One that has not even the package which is always there has an outage, whatever words it finds for that."""
        if error.fault == "stack" and self._run("index", "versions", ALWAYS_THERE, what=ALWAYS_THERE).returncode:
            raise Failed("farm", f"the package index does not answer: it knows no {ALWAYS_THERE} either; {error}")

    def _fetch(self, requirements: Sequence[str], options: Sequence[str], what: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            wanted = Path(folder) / "requirements.txt"
            wanted.write_text("".join(f"{line}\n" for line in requirements))
            command, *more = options
            found = ["--find-links", str(self._wheels), "--only-binary=:all:"]
            answer = self._run(command, *found, *more, "--requirement", str(wanted), what=what)
        if answer.returncode:
            raise _failure(answer.stdout)

    def _run(self, *arguments: str, what: str) -> subprocess.CompletedProcess[str]:
        command = [
            str(self.home / "venv" / "bin" / "python"), "-I", "-m", "pip", "--verbose", "--no-color", "--no-input",
            "--disable-pip-version-check", "--retries", "2", "--timeout", "20",
            "--cache-dir", str(self.home / "cache" / "pip"), *arguments,
        ]  # fmt: skip
        try:
            return subprocess.run(
                command, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, errors="replace", timeout=PIP_TIMEOUT_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise Failed("farm", f"pip took more than {PIP_TIMEOUT_S:.0f} s for {what}") from None


def _sha256_of(download: Mapping[str, Any]) -> str:
    """As the index told it; of a wheel that set-up has made nobody has told it."""
    told = download["archive_info"].get("hashes", {}).get("sha256")
    if told is not None:
        return str(told)
    return _digest_of(Path(unquote(urlsplit(download["url"]).path)))


def _digest_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _failure(output: str) -> Failed:
    """Whose fault it is that pip could not: an index that answers "no such package" speaks of what was asked."""
    lines = [line.strip() for line in output.splitlines()]
    if full := [line for line in lines if room.told_full(line)]:
        return Failed("farm", f"there is no room left for packages: {full[-1][-300:]}")
    if silent := [line for line in lines if _SILENCE.search(line) and "404 Client Error" not in line]:
        return Failed("farm", f"the package index does not answer: {silent[-1][:300]}")
    errors = [_VERSIONS.sub(_newest, line.partition("ERROR:")[2].strip()) for line in lines if "ERROR:" in line]
    told = _conflict(lines) or errors[:1] or lines[-1:]  # the error itself has long paths, and no reason
    return Failed("stack", f"cannot be installed: {' '.join(told)[:600] or 'no reason given'}")


def _newest(versions: re.Match[str]) -> str:
    return f"(from versions: … {', '.join(versions[1].split(', ')[-3:])})"


def _conflict(lines: Sequence[str]) -> list[str]:
    """What pip says of requirements that do not go together."""
    if "The conflict is caused by:" not in lines:
        return []
    said = lines[lines.index("The conflict is caused by:") + 1 :]
    return ["; ".join(said[: said.index("")] if "" in said else said)]


def lock_of(wheels: Sequence[Wheel]) -> str:
    return "".join(f"{wheel.pinned}\n" for wheel in sorted(wheels, key=lambda wheel: wheel.name))


def downloaded(folder: Path) -> list[Wheel]:
    """The wheels that `Pip.download` has put there."""
    wheels = []
    for file in sorted(folder.iterdir()):
        name, version, *_ = file.name.split("-")
        wheels.append(Wheel(normal(name), version.replace("_", "+"), _digest_of(file), file))
    return wheels


def read_lock(text: str) -> list[Wheel]:
    """The wheels of a lock as `lock_of` writes it. Raises Failed (farm)."""
    wheels = []
    for line in text.splitlines():
        pinned = _PINNED.fullmatch(line)
        if pinned is None:
            raise Failed("farm", f"the plan's lock: {line[:80]!r} is no pin with a digest")
        wheels.append(Wheel(pinned[1], pinned[2], pinned[3]))
    return wheels


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
