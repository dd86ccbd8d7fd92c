"""A check-in becomes a build: its recipe read, its packages pinned by digest, its code in folders ready to deploy.

Nothing of a check-in or of a package runs here. Packages are taken as wheels only, which pip unpacks without
executing them, into plain folders that go on the path of an interpreter inside the sandbox.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scenarios.contract import Failed
from scenarios.crossing import PlannedBuild, ResolvedBuild, digest_of, to_data
from scenarios.recipe import Recipe
from scenarios.strict import BadData, parse_toml
from workers.cache import Cache
from workers.checkouts import Mirror

PIP_TIMEOUT_S = 300.0
RECIPE_LIMIT_BYTES = 256 << 10
# The interpreter inside the sandbox is the system's; wheels are chosen for the one that runs us, made from it
PLATFORM = f"{sys.implementation.cache_tag}-{sys.platform}-{os.uname().machine}"

_LOCK_LINE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9][A-Za-z0-9.!+_-]*)")


@dataclass(frozen=True)
class Wheel:
    """One package as it is installed; `name` in its normal form."""

    name: str
    version: str
    sha256: str

    @property
    def requirement(self) -> str:
        return f"{self.name}=={self.version} --hash=sha256:{self.sha256}"


@dataclass(frozen=True)
class Build:
    """A revision, ready to be deployed. `code` are components' folders, first on the path in this order."""

    resolved: ResolvedBuild
    recipe: Recipe
    code: Mapping[str, Path]
    environment: Path  # all libraries the components need


def resolve(planned: PlannedBuild, home: Path) -> Build:
    """Fetch, read and install a check-in; costs little where its parts are in the cache under `home`.

    Raises Failed: stack for a check-in that cannot be built, farm where a source does not answer.
    """
    mirror = Mirror(planned.repository, home / "cache" / "mirrors" / f"{digest_of(planned.repository)[:24]}.git")
    cache = Cache(home / "cache" / "builds")
    pip = Pip(home)
    mirror.bring(planned.commit)
    tree_id = mirror.tree_of(planned.commit)
    tree = cache.entry("tree", tree_id, lambda folder: mirror.extract(planned.commit, folder))
    recipe = _read_recipe(tree)
    pins = {part.name: part.source.pypi for part in recipe.component if part.source.pypi is not None}
    locked = None if recipe.lock is None else _read_lock(tree, recipe.lock)
    code = _path_components(recipe, tree)
    wheels = _resolution(cache, pip, sorted(pins.values()), locked, recipe.lock)
    by_name = {wheel.name: wheel for wheel in wheels}
    own = {name: by_name[_normal(pin.partition("==")[0])] for name, pin in pins.items()}
    libraries = [wheel for wheel in wheels if wheel not in own.values()]
    for name, wheel in own.items():
        code[name] = cache.entry("code", f"{PLATFORM}-{wheel.sha256}", lambda folder, w=wheel: pip.install([w], folder))  # type: ignore[misc]
    environment = cache.entry(
        "environment", f"{PLATFORM}-{digest_of(_lock_of(libraries))}", lambda folder: pip.install(libraries, folder)
    )
    identity = {"tree": tree_id if len(code) > len(own) else "", "wheels": {n: w.sha256 for n, w in own.items()}}
    resolved = ResolvedBuild(planned.revision, _lock_of(wheels), digest_of(identity), to_data(recipe))
    return Build(resolved, recipe, code, environment)


def _read_recipe(tree: Path) -> Recipe:
    try:
        return parse_toml(_read_text(tree, "stack.toml"), Recipe, source="stack.toml")
    except BadData as error:
        raise Failed("stack", str(error)) from None


def _read_lock(tree: Path, name: str) -> dict[str, str]:
    """Package (normal form) → version."""
    locked: dict[str, str] = {}
    for number, line in enumerate(_read_text(tree, name).splitlines(), 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        pin = _LOCK_LINE.fullmatch(text)
        if pin is None:
            raise Failed("stack", f"{name}:{number}: {text[:80]!r} is not 'package==version'")
        if locked.setdefault(_normal(pin[1]), pin[2]) != pin[2]:
            raise Failed("stack", f"{name}:{number}: {pin[1]} is pinned twice, to different versions")
    return locked


def _read_text(tree: Path, name: str) -> str:
    """A file of the check-in; `extract` has proven that no link leads out of it."""
    path = tree / name
    try:
        if path.stat().st_size > RECIPE_LIMIT_BYTES:
            raise Failed("stack", f"{name} is larger than {RECIPE_LIMIT_BYTES >> 10} KiB")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise Failed("stack", f"{name} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Failed("stack", f"{name} is not UTF-8 text") from None


def _path_components(recipe: Recipe, tree: Path) -> dict[str, Path]:
    folders: dict[str, Path] = {}
    for part in recipe.component:
        if part.source.path is None:
            continue
        if part.name == "swift":
            raise Failed("stack", "stack.toml: the component 'swift' must be pinned: source = { pypi = \"swift==…\" }")
        folder = (tree / part.source.path).resolve()
        if not folder.is_dir() or not folder.is_relative_to(tree.resolve()):
            raise Failed("stack", f"stack.toml: component {part.name!r}: there is no folder {part.source.path!r}")
        folders[part.name] = folder
    return folders


def _resolution(
    cache: Cache, pip: "Pip", pins: Sequence[str], locked: Mapping[str, str] | None, lock_name: str | None
) -> list[Wheel]:
    """All wheels a recipe needs, sorted; found once per platform, then remembered, so that nothing drifts."""

    def ask(folder: Path) -> None:
        requirements = [*pins, *(f"{name}=={version}" for name, version in (locked or {}).items())]
        wheels = pip.resolve(requirements)
        if locked is not None:
            _check_complete(wheels, pins, locked, str(lock_name))
        (folder / "wheels.json").write_text(json.dumps([to_data(wheel) for wheel in wheels]))

    key = digest_of({"platform": PLATFORM, "pins": list(pins), "locked": None if locked is None else dict(locked)})
    stored = json.loads((cache.entry("resolution", key, ask) / "wheels.json").read_text())
    return [Wheel(**wheel) for wheel in stored]


def _check_complete(wheels: Sequence[Wheel], pins: Sequence[str], locked: Mapping[str, str], lock_name: str) -> None:
    known = {*locked, *(_normal(pin.partition("==")[0]) for pin in pins)}
    missing = [f"{wheel.name}=={wheel.version}" for wheel in wheels if wheel.name not in known]
    if missing:
        raise Failed("stack", f"{lock_name} is not complete: {', '.join(missing)} missing")


@dataclass(frozen=True)
class Pip:
    """The farm's own pip; it sees pins only, never text of a check-in."""

    home: Path

    def resolve(self, requirements: Sequence[str]) -> list[Wheel]:
        """What would be installed, sorted by name; raises Failed."""
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder) / "report.json"
            options = ["--dry-run", "--ignore-installed", "--report", str(report)]
            self._install(requirements, options, " and ".join(r for r in requirements[:1]))
            found = json.loads(report.read_text())["install"]
        wheels = [
            Wheel(
                _normal(item["metadata"]["name"]),
                item["metadata"]["version"],
                item["download_info"]["archive_info"]["hashes"]["sha256"],
            )
            for item in found
        ]
        return sorted(wheels, key=lambda wheel: wheel.name)

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
                "install", "--only-binary=:all:", "--no-warn-script-location", *options, "--requirement", str(wanted),
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


def _lock_of(wheels: Sequence[Wheel]) -> str:
    return "".join(f"{wheel.requirement}\n" for wheel in sorted(wheels, key=lambda wheel: wheel.name))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
