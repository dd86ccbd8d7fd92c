"""Real git repositories for tests."""

import os
import subprocess
from pathlib import Path

_IDENTITY = {
    "GIT_AUTHOR_NAME": "A. Developer",
    "GIT_AUTHOR_EMAIL": "developer@example.com",
    "GIT_COMMITTER_NAME": "A. Developer",
    "GIT_COMMITTER_EMAIL": "developer@example.com",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
}


class Repository:
    """A deployment repository with a working tree."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True)
        self.git("init", "--quiet", "--initial-branch=main")

    @classmethod
    def at(cls, path: Path) -> "Repository":
        """One that is there."""
        repository = cls.__new__(cls)
        repository.path = path
        return repository

    def git(self, *arguments: str) -> str:
        finished = subprocess.run(
            ("git", *arguments),
            cwd=self.path,
            env={**os.environ, **_IDENTITY},
            check=True,
            capture_output=True,
            text=True,
            timeout=300,  # Nova has thousands of files
        )
        return finished.stdout.strip()

    def commit(self, subject: str) -> str:
        """A new check-in on the present branch; returns its commit."""
        self.git("commit", "--quiet", "--allow-empty", "--message", subject)
        return self.git("rev-parse", "HEAD")
