"""A check-in becomes a build: its recipe read, its packages pinned by digest, its code in folders ready to deploy.

Nothing of a check-in or of a package runs here. Packages are taken as wheels only, which pip unpacks without
executing them, into plain folders that go on the path of an interpreter inside the sandbox. A component that comes
as source is built into a wheel behind the sandbox' walls first.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scenarios.contract import Failed
from scenarios.crossing import PlannedBuild, ResolvedBuild, digest_of, to_data
from scenarios.recipe import DAEMON, VMM, VMM_PART, Recipe, Source
from scenarios.strict import BadData, from_data, parse_toml
from workers import emulators, libvirts, room, wheels
from workers.archives import Archive
from workers.cache import Cache
from workers.checkouts import Mirror, apply_patch
from workers.compilers import CompilerCache
from workers.debian import Apt
from workers.libvirts import Libvirt
from workers.packages import Pip, Wheel, downloaded, lock_of, normal, read_lock

RECIPE_LIMIT_BYTES = 256 << 10
# The interpreter inside the sandbox is the system's; wheels are chosen for the one that runs us, made from it
PLATFORM = f"{sys.implementation.cache_tag}-{sys.platform}-{os.uname().machine}"

_LOCK_LINE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9][A-Za-z0-9.!+_-]*)")


@dataclass(frozen=True)
class Build:
    """A revision, ready to be deployed. `code` are components' folders, first on the path in this order."""

    resolved: ResolvedBuild
    recipe: Recipe
    code: Mapping[str, Path]
    environment: Path  # all libraries the components need
    emulator: Archive | None = None  # what guests run on, where the recipe deploys it
    daemon: Libvirt | None = None  # what manages them, likewise
    tests: "Tests | None" = None

    @property
    def hypervisor(self) -> list[str]:
        """The components of it that are the hypervisor."""
        return [name for name, one in ((VMM, self.emulator), (DAEMON, self.daemon)) if one is not None]


@dataclass(frozen=True)
class Tests:
    """The stack's own suite: the folder that its paths are in, and what it needs beside the stack's libraries."""

    source: Path
    libraries: Path


@dataclass(frozen=True)
class Workshop:
    """Where builds are made: the farm's home with its caches, and for the session's sandboxes its mark and folder."""

    home: Path
    lease: str
    folder: Path

    @property
    def cache(self) -> Cache:
        return Cache(self.home / "cache" / "builds")

    @property
    def apt(self) -> Apt:
        return Apt(self.home / "cache" / "apt")

    @property
    def pip(self) -> Pip:
        return Pip(self.home)

    def mirror(self, url: str) -> Mirror:
        return Mirror(url, self.home / "cache" / "mirrors" / f"{digest_of(url)[:24]}.git")

    def tree(self, url: str, commit: str) -> tuple[str, Path]:
        """The id of a commit's tree, and its files."""
        mirror = self.mirror(url)
        mirror.bring(commit)
        tree_id = mirror.tree_of(commit)
        return tree_id, self.cache.entry("tree", tree_id, lambda folder: mirror.extract(commit, folder))

    def bring(self, source: Source) -> Mirror:
        """The mirror of a component's repository, with its commit."""
        mirror = self.mirror(str(source.git))
        mirror.bring(str(source.commit))
        return mirror

    @contextlib.contextmanager
    def checked_out(self, source: Source, name: str) -> Iterator[Path]:
        """A component's files while it is built, patched; its submodules are empty folders. Too large to be kept."""
        folder = self.folder / name
        try:
            folder.mkdir(parents=True)
            self.bring(source).extract(str(source.commit), folder, submodules=True)
            if source.patch is None:
                yield folder
                return
            with tempfile.TemporaryDirectory(dir=self.folder) as changed:
                apply_patch(folder, self.home / "patches" / source.patch, Path(changed))
                yield Path(changed)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def kept(self, sha256: str) -> Path | None:
        """The folder with the one file of that digest, as it was built before, here or on another cluster."""
        folder = self.cache.find("artefact", sha256)
        return folder if folder is not None and [_sha256(file) for file in folder.iterdir()] == [sha256] else None

    def keep(self, file: Path, sha256: str) -> None:
        """Keep what was built under its digest."""
        self.cache.entry("artefact", sha256, lambda folder: os.link(file, folder / file.name))

    def compiled(self, url: str) -> CompilerCache:
        return CompilerCache(self.home / "cache" / "compilers" / digest_of(url)[:24])

    def patched(self, tree_id: str, tree: Path, patch: str) -> tuple[str, Path]:
        """The same with a patch of the farm's private store."""
        changed = digest_of({"tree": tree_id, "patch": patch})
        file = self.home / "patches" / patch
        return changed, self.cache.entry("tree", changed, lambda folder: apply_patch(tree, file, folder))


@dataclass
class _Parts:
    """What a recipe asks for, component by component."""

    pins: dict[str, str] = field(default_factory=dict)  # from the package index
    built: dict[str, Wheel] = field(default_factory=dict)  # from source
    sources: dict[str, Path] = field(default_factory=dict)  # of those that were built
    folders: dict[str, Path] = field(default_factory=dict)  # as they are
    emulator: Archive | None = None
    daemon: Libvirt | None = None
    tree: str = ""  # of the deployment repository, where folders of it are used

    @property
    def made(self) -> dict[str, str]:
        """Component → digest of the file that it was built into."""
        made = {name: wheel.sha256 for name, wheel in self.built.items()}
        return made | {name: one.digest for name, one in self.programs.items()}

    @property
    def programs(self) -> dict[str, Archive | Libvirt]:
        """Component → what is sent to hosts of it."""
        return {name: one for name, one in ((VMM, self.emulator), (DAEMON, self.daemon)) if one is not None}


def resolve(planned: PlannedBuild, workshop: Workshop) -> Build:
    """Fetch, read, build and install a check-in; costs little where its parts are in the workshop's cache.

    Raises Failed, with component and stage: stack for a check-in that cannot be built; farm where a source does not
    answer, a lock cannot be had, or a disk is full.
    """
    with room.needed(f"a build of {planned.label}"):
        return _resolve(planned, workshop)


def _resolve(planned: PlannedBuild, workshop: Workshop) -> Build:
    recipe, locked, tree_id, tree = _recipe_of(planned, workshop)
    before = next((one for one in planned.resolved if one.platform == PLATFORM), None)
    parts = _parts(recipe, tree_id, tree, workshop, {} if before is None else before.made)
    if before is None:
        found = _resolution(workshop, parts, locked, recipe.lock)
    else:
        own_wheels = {wheel.name: wheel for wheel in parts.built.values()}
        found = [own_wheels.get(wheel.name, wheel) for wheel in read_lock(before.lock)]
    by_name = {wheel.name: wheel for wheel in found}
    own = {name: by_name[normal(pin.partition("==")[0])] for name, pin in parts.pins.items()} | parts.built
    libraries = [wheel for wheel in found if wheel.name not in {one.name for one in own.values()}]
    code = dict(parts.folders)
    for name, wheel in own.items():
        with _told(name, "code"):
            code[name] = _installed("code", wheel.sha256, [wheel], workshop)
    environment = _installed("environment", digest_of(lock_of(libraries)), libraries, workshop)
    identity: dict[str, object] = {
        "tree": parts.tree,
        "wheels": {name: wheel.sha256 for name, wheel in own.items()},
    }
    if parts.emulator is not None:
        identity["emulator"] = parts.emulator.digest
    if parts.daemon is not None:
        identity["daemon"] = parts.daemon.digest
    code_digest = digest_of(identity)
    resolved = ResolvedBuild(planned.revision, lock_of(found), code_digest, to_data(recipe), PLATFORM, parts.made)
    tests = _tests(recipe, parts, found, workshop)
    return Build(resolved, recipe, code, environment, parts.emulator, parts.daemon, tests)


def _recipe_of(planned: PlannedBuild, workshop: Workshop) -> tuple[Recipe, Mapping[str, str] | None, str, Path | None]:
    """The recipe with its lock, if it has one; and the deployment repository's tree, if it is from there."""
    if planned.recipe is None:
        tree_id, tree = workshop.tree(planned.repository, planned.commit)
        recipe = _read_recipe(tree)
        locked = None if recipe.lock is None else _parse_lock(_read_text(tree, recipe.lock), recipe.lock)
        return recipe, locked, tree_id, tree
    try:
        recipe = from_data(planned.recipe, Recipe, source="the stack's recipe")
    except BadData as error:
        raise Failed("farm", f"the toolchain: {error}") from None
    locked = None if planned.lock is None else _parse_lock(planned.lock, str(recipe.lock))
    return recipe, locked, "", None


def _parts(
    recipe: Recipe, tree_id: str, tree: Path | None, workshop: Workshop, made_before: Mapping[str, str]
) -> _Parts:
    """`made_before`: component → digest of the file that it was built into before."""
    parts = _Parts()
    for component in recipe.component:
        name, source = component.name, component.source
        with _told(name, "source"):
            if name == VMM:
                parts.emulator = _emulator(recipe, workshop, made_before.get(name))
            elif name == DAEMON:
                parts.daemon = _daemon(str(source.debian), workshop, made_before.get(name))
            elif name == VMM_PART:
                continue  # it is built into that
            elif source.pypi is not None:
                parts.pins[name] = source.pypi
            elif source.path is not None:
                parts.folders[name] = _folder(name, source.path, tree)
                parts.tree = tree_id
            else:
                parts.sources[name], parts.built[name] = _built(name, source, workshop, made_before.get(name))
    return parts


@contextlib.contextmanager
def _told(component: str, stage: str) -> Iterator[None]:
    """Adds whose component failed, and at which stage, where the reason does not say so yet."""
    try:
        yield
    except Failed as error:
        if str(error).startswith("component "):
            raise
        raise Failed(error.fault, f"component '{component}' (at: {stage}): {error}") from None


def _built(name: str, source: Source, workshop: Workshop, made_before: str | None) -> tuple[Path, Wheel]:
    """A component's source and its wheel: built once for each tree, patch and platform."""
    assert source.git is not None
    assert source.commit is not None  # as `Source` has checked
    tree_id, tree = workshop.tree(source.git, source.commit)
    if source.patch is not None:
        tree_id, tree = workshop.patched(tree_id, tree, source.patch)
    if made_before is not None and (kept := workshop.kept(made_before)) is not None:
        return tree, wheels.read(name, kept)
    toolchain = _toolchain(workshop, wheels.TOOLCHAIN)
    key = digest_of({"tree": tree_id, "platform": PLATFORM, "toolchain": toolchain.parent.name})

    def build(folder: Path) -> None:
        wheels.build(name, tree, toolchain, folder, lease=workshop.lease, run_dir=workshop.folder / f"build-{key[:12]}")

    wheel = wheels.read(name, workshop.cache.entry("wheel", key, build))
    assert wheel.file is not None  # as it was built here
    workshop.keep(wheel.file, wheel.sha256)
    return tree, wheel


def _tests(recipe: Recipe, parts: _Parts, found: Sequence[Wheel], workshop: Workshop) -> Tests | None:
    """None where the recipe names no tests, or the component that has them is no source."""
    tests = recipe.tests
    if tests is None or tests.component not in (None, *parts.sources):
        return None
    downloaded = [f"{wheel.name}=={wheel.version}" for wheel in found if wheel.file is None]
    wanted = _remembered(workshop, sorted([*tests.pins, *downloaded]), None, None, (), "the stack's tests")
    names = {wheel.name for wheel in found}
    more = [wheel for wheel in wanted if wheel.name not in names]
    _require_digests(more, tests.digests)
    libraries = _installed("environment", digest_of(lock_of(more)), more, workshop)
    return Tests(libraries if tests.component is None else parts.sources[tests.component], libraries)


def _require_digests(wheels: Sequence[Wheel], told: Mapping[str, str]) -> None:
    """Raises Failed (farm) for one that the recipe's tests, where they tell digests, do not mean."""
    digests = {normal(name): digest for name, digest in told.items()}
    for wheel in wheels if digests else ():
        if digests.get(wheel.name) != wheel.sha256:
            raise Failed("farm", f"the requirements of the stack's tests do not name {wheel.pinned}")


def _emulator(recipe: Recipe, workshop: Workshop, made_before: str | None) -> Archive:
    """QEMU ready to be sent to hosts: unpacked once for each package, built once for each tree, patch and platform."""
    if made_before is not None and (kept := workshop.kept(made_before)) is not None:
        return emulators.read(kept)
    by_name = {component.name: component.source for component in recipe.component}
    source = by_name[VMM]
    made = _unpacked(source.debian, workshop) if source.debian else _compiled(source, by_name.get(VMM_PART), workshop)
    workshop.keep(made.archive, made.digest)
    return made


def _daemon(pin: str, workshop: Workshop, made_before: str | None) -> Libvirt:
    """A libvirtd ready to be sent to hosts: unpacked once for each package."""
    if made_before is not None and (kept := workshop.kept(made_before)) is not None:
        return libvirts.read(kept, pin)
    key = digest_of({"package": pin, "platform": PLATFORM})
    folder = workshop.cache.entry("libvirt", key, lambda target: libvirts.of_package(pin, workshop.apt, target))
    made = libvirts.read(folder, pin)
    workshop.keep(made.archive, made.digest)
    return made


def _unpacked(pin: str, workshop: Workshop) -> Archive:
    key = digest_of({"package": pin, "platform": PLATFORM})
    return emulators.read(
        workshop.cache.entry("emulator", key, lambda folder: emulators.of_package(pin, workshop.apt, folder))
    )


def _compiled(source: Source, part: Source | None, workshop: Workshop) -> Archive:
    toolchain = _toolchain(workshop, emulators.TOOLCHAIN)
    trees = [workshop.bring(one).tree_of(str(one.commit)) for one in (source, part) if one is not None]
    key = digest_of({"trees": trees, "patch": source.patch, "platform": PLATFORM, "toolchain": toolchain.parent.name})

    def build(folder: Path) -> None:
        with contextlib.ExitStack() as used:
            tree = used.enter_context(workshop.checked_out(source, f"source-{key[:12]}"))
            other = used.enter_context(workshop.checked_out(part, f"part-{key[:12]}")) if part is not None else None
            emulators.of_source(
                emulators.Sources(tree, other, toolchain, workshop.compiled(str(source.git)), source.patch is None),
                folder,
                lease=workshop.lease,
                run_dir=workshop.folder / f"build-{key[:12]}",
            )

    return emulators.read(workshop.cache.entry("emulator", key, build))


def _toolchain(workshop: Workshop, pins: Sequence[str]) -> Path:
    """What builds from source: the farm's choice, so no check-in is to blame where it cannot be had."""
    try:
        found = _remembered(workshop, pins, None, None, (), "its packages")
        return _installed("environment", digest_of(lock_of(found)), found, workshop)
    except Failed as error:
        raise Failed("farm", f"the toolchain: {error}") from None


def _installed(kind: str, key: str, packages: Sequence[Wheel], workshop: Workshop) -> Path:
    try:
        return workshop.cache.entry(kind, f"{PLATFORM}-{key}", lambda folder: workshop.pip.install(packages, folder))
    except Failed as error:
        if kind == "code":
            raise
        raise Failed("farm", f"the libraries (at: {kind}): {error}") from None  # they were resolved: they must be there


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_recipe(tree: Path) -> Recipe:
    try:
        return parse_toml(_read_text(tree, "stack.toml"), Recipe, source="stack.toml")
    except BadData as error:
        raise Failed("stack", str(error)) from None


def _parse_lock(text: str, name: str) -> dict[str, str]:
    """Package (normal form) → version."""
    locked: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.partition("#")[0].strip()
        if not stripped:
            continue
        pin = _LOCK_LINE.fullmatch(stripped)
        if pin is None:
            raise Failed("stack", f"{name}:{number}: {stripped[:80]!r} is not 'package==version'")
        if locked.setdefault(normal(pin[1]), pin[2]) != pin[2]:
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


def _folder(name: str, path: str, tree: Path | None) -> Path:
    if tree is None:
        raise Failed("stack", f"stack.toml: the component {name!r} cannot be a folder: pin a package or a commit")
    folder = (tree / path).resolve()
    if not folder.is_dir() or not folder.is_relative_to(tree.resolve()):
        raise Failed("stack", f"stack.toml: component {name!r}: there is no folder {path!r}")
    return folder


def _resolution(
    workshop: Workshop, parts: _Parts, locked: Mapping[str, str] | None, lock_name: str | None
) -> list[Wheel]:
    """All wheels a recipe needs, sorted."""
    built = sorted(parts.built.values(), key=lambda wheel: wheel.name)
    names = [*(pin.partition("==")[0] for pin in sorted(parts.pins.values())), *(wheel.name for wheel in built)]
    what = f"component {' and '.join(map(repr, names))}"
    found = _remembered(workshop, sorted(parts.pins.values()), locked, lock_name, built, what)
    own = {wheel.name: wheel for wheel in built}
    return [own.get(wheel.name, wheel) for wheel in found]


def _remembered(
    workshop: Workshop,
    pins: Sequence[str],
    locked: Mapping[str, str] | None,
    lock_name: str | None,
    built: Sequence[Wheel],
    what: str,
) -> list[Wheel]:
    """What pip chose for `what`, found once per platform, so that nothing drifts."""
    key: dict[str, object] = {
        "platform": PLATFORM,
        "pins": list(pins),
        "locked": None if locked is None else dict(locked),
    }
    if made_here := workshop.pip.made_here():
        key["made here"] = made_here
    if built:
        key["built"] = {wheel.name: wheel.needs for wheel in built}
    entry = "resolution", digest_of(key)
    kept = workshop.cache.find(*entry)
    if kept is None:
        try:
            found = _locked(workshop, pins, locked, str(lock_name), built)
        except Failed as error:
            raise Failed(error.fault, f"{what} (at: environment): {error}") from None
        plain = json.dumps([{"name": one.name, "version": one.version, "sha256": one.sha256} for one in found])
        kept = workshop.cache.entry(*entry, lambda folder: _write(folder / "wheels.json", plain))
    return [Wheel(**wheel) for wheel in json.loads((kept / "wheels.json").read_text())]


def _write(file: Path, text: str) -> None:
    file.write_text(text)


def _locked(
    workshop: Workshop, pins: Sequence[str], locked: Mapping[str, str] | None, lock_name: str, built: Sequence[Wheel]
) -> list[Wheel]:
    """All wheels for these pins, as the lock has them. A lock that cannot be resolved is never the stack's fault.

    What is locked is downloaded once: with files, pip asks the index for nothing but what is new in a revision.
    """
    pip = workshop.pip
    if locked is None:
        return pip.resolve(pins, built)
    key = f"{PLATFORM}-{digest_of({'locked': dict(locked), 'made here': pip.made_here()})}"
    try:
        files = downloaded(workshop.cache.entry("wheels", key, lambda folder: pip.download(locked, folder)))
        found = pip.resolve(pins, [*built, *files])
    except Failed as error:
        if error.fault != "stack":
            raise
        pip.resolve(pins, built)  # where the components cannot be had without the lock either, they are to blame
        raise Failed("farm", f"{lock_name} cannot be resolved: {error}") from None
    known = {*locked, *(normal(pin.partition("==")[0]) for pin in pins), *(wheel.name for wheel in built)}
    missing = [f"{wheel.name}=={wheel.version}" for wheel in found if wheel.name not in known]
    if missing:
        raise Failed("farm", f"{lock_name} is not complete: {', '.join(missing)} missing")
    return found
