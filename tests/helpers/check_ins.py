"""Deployment repositories for tests: real git, check-ins made from plain texts."""

import os
from collections.abc import Mapping
from pathlib import Path

from scenarios.crossing import PlannedBuild, revision_of
from tests.helpers.repositories import Repository

CHECKOUT = Path(__file__).resolve().parents[2]
FARM_HOME = Path(os.environ.get("FARM_HOME", CHECKOUT / "var")).resolve()
EXAMPLE = CHECKOUT / "examples" / "deployment" / "1-deploy-swift-and-guests"

HEAD = 'lock = "lock.txt"\n[stack]\nname = "test"\ndeployer = "swift"\n'


def recipe(swift: str = "swift==2.38.3", *, head: str = HEAD, rest: str = "") -> str:
    """A stack.toml that pins `swift`; `rest` follows."""
    return f'{head}[[component]]\nname = "swift"\nsource = {{ pypi = "{swift}" }}\n{rest}'


def example_lock() -> str:
    return (EXAMPLE / "lock.txt").read_text()


class DeploymentRepository(Repository):
    """A git repository; `check_in` returns what a plan would say about the new commit."""

    def check_in(self, texts: Mapping[str, str], links: Mapping[str, str] | None = None) -> PlannedBuild:
        """Add or replace these files and links."""
        for name, text in texts.items():
            file = self.path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        for name, target in (links or {}).items():
            (self.path / name).symlink_to(target)
        self.git("add", "--all")
        return self.planned(self.commit("a check-in"))

    def planned(self, commit: str) -> PlannedBuild:
        return PlannedBuild(revision_of({"test": commit}), "a check-in", ("subject",), str(self.path), commit)
