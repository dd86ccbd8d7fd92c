"""The farm's settings: one TOML file, strictly read; without one, the embedded default of two local clusters.

Paths in the file are relative to it; state lives under `FARM_HOME` (default: `var/` in the checkout).
"""

import os
import re
import tomllib
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from farm import names, stacks
from scenarios.strict import BadData, read_toml

CHECKOUT = Path(__file__).resolve().parent.parent
_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
_TIME = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]")


@dataclass(frozen=True)
class RepositorySettings:
    """A watched repository. `url` is anything git can fetch; a relative path is relative to the settings file.

    One without `stack` is a deployment, with a stack.toml; one with it is the source of that stack's `component`.
    """

    name: str
    url: str
    branch: str = "main"
    canary: str = ""  # the frozen build: a commit; empty: the first check-in the farm saw
    stack: str = ""  # a recipe of stacks/
    component: str = ""  # of the stack; empty: the one that has the stack's name

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"name = {self.name!r} must be lower-case letters, digits and '-'")
        if self.component and not self.stack:
            raise ValueError(f"component = {self.component!r} is of no stack: name one with 'stack'")
        if self.stack:
            stacks.check(self.stack, self.component_name)

    @property
    def component_name(self) -> str:
        return self.component or self.stack


@dataclass(frozen=True)
class CampaignSettings:
    """How a campaign measures: its sessions in order, with the number of blocks of each, fixed in advance."""

    blocks: tuple[int, ...] = (1, 2, 2)
    rounds: int = 1
    history: int = 30  # check-ins of a newly watched repository that are measured, newest first
    session_deadline_s: int = 1500

    def __post_init__(self) -> None:
        if not self.blocks or min(self.blocks) < 1 or self.rounds < 1:
            raise ValueError("blocks must be a list of numbers from 1, rounds at least 1")
        if self.history < 1 or self.session_deadline_s < 1:
            raise ValueError("history and session_deadline_s must be at least 1")


@dataclass(frozen=True)
class ScenarioSettings:
    name: str
    params: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NightlySettings:
    """What a farm asks by itself at night (see `farm.nightly`)."""

    at: str = ""  # "01:30", in UTC; empty: never
    sweeps: tuple[str, ...] = ()  # empty: all there are

    def __post_init__(self) -> None:
        if self.at and not _TIME.fullmatch(self.at):
            raise ValueError(f"at = {self.at!r} must be a time in UTC such as '01:30', or empty for never")
        for name in self.sweeps:
            names.check_sweep(name)


@dataclass(frozen=True)
class AddressSettings:
    """Loopback ports. 0 takes a free one."""

    site_port: int = 8010
    buildbot_port: int = 8011
    worker_port: int = 8012

    def __post_init__(self) -> None:
        fixed = [port for port in (self.site_port, self.buildbot_port, self.worker_port) if port]
        if len(set(fixed)) < len(fixed):
            raise ValueError(f"the ports {', '.join(map(str, fixed))} must differ")
        if not all(0 <= port < 65536 for port in fixed):
            raise ValueError(f"the ports {', '.join(map(str, fixed))} must be from 0 to 65535")


@dataclass(frozen=True)
class FarmFile:
    """The shape of `farm.toml`."""

    inventory: Path = CHECKOUT / "inventory"
    clusters: tuple[str, ...] = ()  # empty: every file of the inventory
    database: str = ""  # an SQLAlchemy URL; empty: SQLite in FARM_HOME
    tenant: str = "local"
    account: str = "local"
    poll_interval_s: float = 5.0
    repository: tuple[RepositorySettings, ...] = ()
    scenario: tuple[ScenarioSettings, ...] = ()  # empty: all four with their defaults
    campaign: CampaignSettings = CampaignSettings()
    nightly: NightlySettings = NightlySettings()
    addresses: AddressSettings = AddressSettings()

    def __post_init__(self) -> None:
        if not self.poll_interval_s > 0:
            raise ValueError(f"poll_interval_s = {self.poll_interval_s:g} must be above 0")
        watched = [one.name for one in self.repository]
        if twice := [name for name in watched if watched.count(name) > 1]:
            raise ValueError(f"repository '{twice[0]}' is there twice: each needs a name of its own")


@dataclass(frozen=True)
class Settings:
    """Settings with every path absolute."""

    home: Path
    file: Path | None
    farm: FarmFile

    @property
    def database_url(self) -> str:
        return self.farm.database or f"sqlite:///{self.home / 'farm.sqlite'}"

    @property
    def site_dir(self) -> Path:
        return self.home / "site"

    @property
    def bundles_dir(self) -> Path:
        """Admitted bundles, one folder `<session>-<attempt>` each; `incoming/` beside them holds uploads."""
        return self.home / "bundles"


def load_settings(path: Path | None = None, home: Path | None = None) -> Settings:
    """Read `path` (or $SETTINGS, or the embedded default); raises strict.BadData with one clear line."""
    chosen = path or (Path(os.environ["SETTINGS"]) if os.environ.get("SETTINGS") else None)
    state = (home or Path(os.environ.get("FARM_HOME", CHECKOUT / "var"))).resolve()
    if chosen is None:
        return Settings(state, None, embedded_default(state))
    chosen = chosen.resolve()
    read = _read(chosen)
    base = chosen.parent
    repositories = tuple(replace(one, url=_absolute_url(base, one.url)) for one in read.repository)
    return Settings(
        state,
        chosen,
        FarmFile(**{**read.__dict__, "inventory": (base / read.inventory).resolve(), "repository": repositories}),
    )


def _read(path: Path) -> FarmFile:
    try:
        return read_toml(path, FarmFile)
    except BadData as error:
        raise BadData(f"{error}{_misplaced(path)}") from None


def _misplaced(path: Path) -> str:
    """To TOML a key below `[[repository]]` is that repository's: told where it is one of the file's own."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    tables = [one for part in data.values() for one in (part if isinstance(part, list) else [part])]
    below = {key for table in tables if isinstance(table, dict) for key in table}
    own = [one.name for one in fields(FarmFile) if one.name in below]
    return f"; write '{own[0]}' above the first [[…]] or […] of the file" if own else ""


def embedded_default(home: Path) -> FarmFile:
    """Two local clusters and the example deployment repository, which `farm up` makes in FARM_HOME."""
    return FarmFile(repository=(RepositorySettings("example", str(home / "example-deployment")),))


def _absolute_url(base: Path, url: str) -> str:
    """A relative path becomes absolute; anything with a scheme or a host stays as it is."""
    if "://" in url or re.match(r"[^/]+:", url):
        return url
    return str((base / url).resolve())
