"""Deployment repositories for tests: real git, check-ins made from plain texts."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from scenarios.crossing import PlannedBuild, revision_of

CHECKOUT = Path(__file__).resolve().parents[2]
FARM_HOME = Path(os.environ.get("FARM_HOME", CHECKOUT / "var")).resolve()
EXAMPLE = CHECKOUT / "examples" / "deployment" / "1-deploy-swift-and-guests"

HEAD = 'lock = "lock.txt"\n[stack]\nname = "test"\ndeployer = "swift"\n'


def recipe(swift: str = "swift==2.38.3", *, head: str = HEAD, rest: str = "") -> str:
    """A stack.toml that pins `swift`; `rest` follows."""
    return f'{head}[[component]]\nname = "swift"\nsource = {{ pypi = "{swift}" }}\n{rest}'


def example_lock() -> str:
    return (EXAMPLE / "lock.txt").read_text()


class DeploymentRepository:
    """A git repository; `check_in` returns what a plan would say about the new commit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")

    def git(self, *arguments: str, given: str | None = None) -> str:
        environment = {
            "PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@t.example",
            "GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@t.example",
        }  # fmt: skip
        done = subprocess.run(
            ["git", *arguments], cwd=self.folder, env=environment, input=given, capture_output=True, text=True,
            check=True, timeout=60,
        )  # fmt: skip
        return done.stdout.strip()

    def check_in(self, texts: Mapping[str, str], links: Mapping[str, str] | None = None) -> PlannedBuild:
        for path, text in texts.items():
            file = self.folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        for path, target in (links or {}).items():
            (self.folder / path).symlink_to(target)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "a check-in")
        return self.planned(self.git("rev-parse", "HEAD"))

    def planned(self, commit: str) -> PlannedBuild:
        return PlannedBuild(revision_of({"test": commit}), "a check-in", ("subject",), str(self.folder), commit)
