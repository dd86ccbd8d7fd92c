"""Packages of Debian as they are: downloaded by apt, which checks their signatures, and unpacked, never installed.

No script of a package runs, and nothing of it leaves the folder it is unpacked into. What apt knows is the farm's own:
the machine's sources of its release, backports from the same mirror, and whatever is added to `sources.list` there.
"""

import contextlib
import hashlib
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from scenarios.contract import Failed
from workers.turns import turn

RELEASE = "bookworm"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
TIMEOUT_S = 300.0
TURN_TIMEOUT_S = 900.0  # longer than a package and its family take
_DEPENDENCY = re.compile(r"([a-z0-9][a-z0-9+.-]+)")
_SOURCE = re.compile(r"(\S+)(?: \((\S+)\))?")


@dataclass(frozen=True)
class Package:
    """A binary package as apt's lists describe it."""

    name: str
    version: str
    sha256: str
    source: tuple[str, str]  # name and version of what it was built from
    depends: tuple[str, ...]  # names; of alternatives the first

    @property
    def pin(self) -> str:
        return f"{self.name}={self.version}"


@dataclass(frozen=True)
class Apt:
    """Apt with lists, cache and sources in a folder of its own; callers take turns."""

    folder: Path

    def unpack(self, pin: str, beside: Sequence[str], target: Path, *, also: Sequence[str] = ()) -> list[Package]:
        """Unpack a pinned package, `also` others of the same source, what these need of it, and the packages `beside`.

        Raises Failed: stack for a version that there is not, farm where the package source does not answer.
        """
        with self._own_turn():
            return self._unpack(pin, beside, target, also)

    def _unpack(self, pin: str, beside: Sequence[str], target: Path, also: Sequence[str]) -> list[Package]:
        packages = [*self._family(pin, also), *(self._newest(name) for name in beside)]
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            self._run("apt-get", "--quiet=2", "download", *(package.pin for package in packages), cwd=Path(folder))
            found = {hashlib.sha256(file.read_bytes()).hexdigest(): file for file in Path(folder).glob("*.deb")}
            for package in packages:
                if package.sha256 not in found:
                    raise Failed("farm", f"the download of {package.pin} is not what apt's lists say")
                self._run("dpkg-deb", "--extract", str(found[package.sha256]), str(target), cwd=Path(folder))
        return packages

    def known(self, name: str) -> list[Package]:
        """All versions of a package that apt's lists have, the newest first."""
        with self._own_turn():
            return self._known(name)

    def _own_turn(self) -> contextlib.AbstractContextManager[None]:
        """Apt's own locks fail where they should wait."""
        return turn(self.folder / "turn", timeout_s=TURN_TIMEOUT_S, busy="apt")

    def _known(self, name: str) -> list[Package]:
        self._prepare()
        text = self._run("apt-cache", "show", "--all-versions", name, may_fail=True)
        return [_read(block) for block in text.split("\n\n") if "\nSHA256: " in block]

    def _family(self, pin: str, also: Sequence[str]) -> list[Package]:
        """The package and `also` others of the same build of the same source, and those that they depend on."""
        first = self._pinned(pin)
        family, waiting = {first.name: first}, [*also, *first.depends]
        while waiting:
            name = waiting.pop()
            if name in family:
                continue
            for package in self._known(name):
                if package.source == first.source:
                    family[name] = package
                    waiting += package.depends
                    break
        return list(family.values())

    def _pinned(self, pin: str) -> Package:
        name, _, version = pin.partition("=")
        there = self._known(name)
        if version not in [package.version for package in there]:
            self._update()
            there = self._known(name)
        for package in there:
            if package.version == version:
                return package
        others = ", ".join(sorted({package.version for package in there})) or "none"
        raise Failed("stack", f"there is no Debian package {pin} (known versions: {others})")

    def _newest(self, name: str) -> Package:
        known = self._known(name)
        if not known:
            raise Failed("farm", f"the package source has no {name}")
        return known[0]

    def _prepare(self) -> None:
        for name in ("lists/partial", "cache/archives/partial"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        sources = self.folder / "sources.list"
        if not sources.exists():
            sources.write_text(_sources(self._own_sources()))
        if not any((self.folder / "lists").glob("*_Packages*")):
            self._update()

    def _own_sources(self) -> str:
        """Those of the machine's own apt."""
        form = "$(CREATED_BY) $(REPO_URI) $(RELEASE) $(COMPONENT)"
        asked = ["apt-get", "indextargets", "--no-release-info", "--format", form]
        return subprocess.run(asked, capture_output=True, text=True, timeout=TIMEOUT_S, check=False).stdout

    def _update(self) -> None:
        self._run("apt-get", "--quiet=2", "update")

    def _run(self, *command: str, cwd: Path | None = None, may_fail: bool = False) -> str:
        options = {
            "Dir::Etc::sourcelist": str(self.folder / "sources.list"),
            "Dir::Etc::sourceparts": "-",
            "Dir::Etc::preferencesparts": "-",
            "Dir::State::lists": str(self.folder / "lists"),
            "Dir::Cache": str(self.folder / "cache"),
            "Dir::Cache::pkgcache": "pkgcache.bin",  # which some machines do without
            "Dir::Cache::srcpkgcache": "srcpkgcache.bin",
            "APT::Sandbox::User": "root",
            "APT::Update::Error-Mode": "any",
            "Acquire::Retries": "2",
            "Acquire::http::Timeout": "20",
        }
        program, *arguments = command
        told = [text for name, value in options.items() for text in ("-o", f"{name}={value}")]
        argv = [program, *(told if program.startswith("apt") else ()), *arguments]
        try:
            done = subprocess.run(
                argv, cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                timeout=TIMEOUT_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise Failed("farm", f"{program} took more than {TIMEOUT_S:.0f} s for {arguments[-1]}") from None
        if done.returncode and not may_fail:
            full = "No space left on device" in done.stderr
            what = "there is no room for a Debian package" if full else "the Debian package source does not answer"
            raise Failed("farm", f"{what}: {_reason(done.stderr)}")
        return done.stdout


def _sources(own: str) -> str:
    """The text of a sources.list, from lines 'kind address release component' of the machine's apt."""
    lines = [line.split() for line in own.splitlines()]
    packages = {
        (uri, release, component)
        for kind, uri, release, component in (line for line in lines if len(line) == 4)
        if kind == "Packages" and release.split("-")[0] == RELEASE
    }
    mirror = next(
        (uri for uri, release, component in sorted(packages) if (release, component) == (RELEASE, "main")), ""
    )
    if not mirror:
        raise Failed("farm", f"apt has no source for {RELEASE} main: add one to /etc/apt/sources.list.d")
    wanted = sorted({*packages, (mirror, f"{RELEASE}-backports", "main")})
    return "".join(f"deb [signed-by={KEYRING}] {' '.join(source)}\n" for source in wanted)


def _read(block: str) -> Package:
    fields: dict[str, str] = dict(re.findall(r"^([A-Za-z0-9-]+): (.*)$", block, re.MULTILINE))
    name, version = fields["Package"], fields["Version"]
    source = _SOURCE.match(fields.get("Source", name))
    assert source is not None  # a word is always there
    depends = [_DEPENDENCY.match(one.strip()) for one in fields.get("Depends", "").split(",")]
    return Package(
        name,
        version,
        fields["SHA256"],
        (source[1], source[2] or version),
        tuple(one[1] for one in depends if one),
    )


def _reason(errors: str) -> str:
    lines = [line.strip() for line in errors.splitlines() if line.startswith(("E:", "W:"))] or errors.splitlines()[-1:]
    return " ".join(lines)[:400] or "it says nothing"
