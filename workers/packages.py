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

PIP_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Wheel:
    """One package as it is installed; `name` in its normal form.

    One that was built here, and not downloaded, has a `file` and says what it `needs`.
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

    def resolve(self, requirements: Sequence[str], built: Sequence[Wheel] = ()) -> list[Wheel]:
        """What would be installed, sorted by name, with the wheels that were built here; raises Failed."""
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.json"
            options = ["--dry-run", "--ignore-installed", "--report", str(report)]
            files = [str(wheel.file) for wheel in built]
            self._install([*requirements, *files], options, " and ".join(requirements[:1]))
            found = json.loads(report.read_text())["install"]
        own = {wheel.name for wheel in built}
        wheels = [
            Wheel(
                normal(item["metadata"]["name"]),
                item["metadata"]["version"],
                _sha256_of(item["download_info"]),
            )
            for item in found
            if normal(item["metadata"]["name"]) not in own
        ]
        return sorted([*wheels, *built], key=lambda wheel: wheel.name)

    def install(self, wheels: Sequence[Wheel], target: Path) -> None:
        """Unpack exactly these wheels into `target`; raises Failed."""
        if wheels:
            requirements = [wheel.requirement for wheel in wheels]
            self._install(requirements, ["--no-deps", "--require-hashes", "--target", str(target)], "packages")

    def _install(self, requirements: Sequence[str], options: Sequence[str], what: str) -> None:
        with tempfile.TemporaryDirectory() as folder:
            wanted = Path(folder) / "requirements.txt"
            wanted.write_text("".join(f"{line}\n" for line in requirements))
            command = [
                str(self.home / "venv" / "bin" / "python"), "-I", "-m", "pip", "--verbose", "--no-color", "--no-input",
                "--disable-pip-version-check", "--retries", "2", "--timeout", "20",
                "--cache-dir", str(self.home / "cache" / "pip"),
                "install", "--find-links", str(self.home / "cache" / "wheels"), "--only-binary=:all:",
                "--no-warn-script-location", *options, "--requirement", str(wanted),
            ]  # fmt: skip
            try:
                answer = subprocess.run(
                    command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                    text=True, errors="replace", timeout=PIP_TIMEOUT_S, check=False,
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                raise Failed("farm", f"pip took more than {PIP_TIMEOUT_S:.0f} s for {what}") from None
        if answer.returncode:
            raise _failure(answer.stdout)


def _sha256_of(download: Mapping[str, Any]) -> str:
    """As the index told it; of a wheel that set-up has made nobody has told it."""
    told = download["archive_info"].get("hashes", {}).get("sha256")
    if told is not None:
        return str(told)
    return hashlib.sha256(Path(unquote(urlsplit(download["url"]).path)).read_bytes()).hexdigest()


def _failure(output: str) -> Failed:
    """Whose fault it is that pip could not: an index that answers "no such package" speaks of the check-in."""
    lines = output.splitlines()
    silent = [line.strip() for line in lines if _is_silence(line)]
    if silent:
        return Failed("farm", f"the package index does not answer: {silent[-1][:300]}")
    errors = [line.partition("ERROR:")[2].strip() for line in lines if "ERROR:" in line]
    return Failed(
        "stack",
        f"cannot be installed: {errors[0][:400] if errors else lines[-1][:400] if lines else 'no reason given'}",
    )


def _is_silence(line: str) -> bool:
    if "Could not fetch URL" in line:
        return "404 Client Error" not in line
    return "Retrying (" in line or "No space left on device" in line or "ReadTimeoutError" in line


def lock_of(wheels: Sequence[Wheel]) -> str:
    return "".join(f"{wheel.pinned}\n" for wheel in sorted(wheels, key=lambda wheel: wheel.name))


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
