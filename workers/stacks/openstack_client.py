"""A deployed OpenStack as its users see it: tokens, and requests to its services' APIs."""

import json
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scenarios.contract import Failed
from workers.agent import AgentLink
from workers.stacks import openstack_conf as conf

_CALL_TIMEOUT_S = 60.0
_COMPUTE_VERSION = "compute 2.79"  # the newest that every release since Train has


@dataclass(frozen=True)
class Answer:
    """`began_s` is the observer's monotonic clock."""

    status: int
    body: Any
    began_s: float
    took_s: float


class Client:
    """The administrator of a deployment, at the observer's place. May be used from several threads at once."""

    def __init__(self, observer: AgentLink, control: conf.Control) -> None:
        self._observer = observer
        self._control = control
        self._lock = threading.Lock()
        self._token: str | None = None

    def token(self) -> str:
        """Of the administrator, for this and every other service that trusts the same identity service."""
        with self._lock:
            if self._token is None:
                self._token = self._log_in()
            return self._token

    def ask(
        self,
        port: int,
        method: str,
        path: str,
        body: object = None,
        *,
        file: Path | None = None,
        may_miss: bool = False,
    ) -> Answer:
        """One request to the service at `port`; raises Failed (stack) for an error, but not for 404 with `may_miss`."""
        kind = "application/json" if file is None else "application/octet-stream"
        headers = {"X-Auth-Token": self.token(), "OpenStack-API-Version": _COMPUTE_VERSION, "Content-Type": kind}
        answer, _ = self._request(port, method, path, headers, body, file)
        if answer.status >= 300 and not (may_miss and answer.status == 404):
            told = json.dumps(answer.body) if not isinstance(answer.body, str) else answer.body
            raise Failed("stack", f"{method} {path} answers {answer.status}: {' '.join(told.split())[:300]}")
        return answer

    def compute(self, method: str, path: str, body: object = None, *, may_miss: bool = False) -> Answer:
        return self.ask(conf.COMPUTE_PORT, method, f"/v2.1{path}", body, may_miss=may_miss)

    def image(self, method: str, path: str, body: object = None, *, file: Path | None = None) -> Answer:
        return self.ask(conf.IMAGE_PORT, method, f"/v2{path}", body, file=file)

    def computes_up(self) -> set[str]:
        """Hosts on which Nova has a compute that answers; none as long as Nova cannot say."""
        answer = self.ask(conf.COMPUTE_PORT, "GET", "/v2.1/os-hypervisors/detail", may_miss=True)
        listed = answer.body.get("hypervisors", []) if isinstance(answer.body, dict) else []
        return {entry["service"]["host"] for entry in listed if entry["state"] == "up" and entry["status"] == "enabled"}

    def _log_in(self) -> str:
        user = {"name": conf.USER, "domain": {"id": conf.DOMAIN}, "password": self._control.secrets.admin}
        scope = {"project": {"name": conf.PROJECT, "domain": {"id": conf.DOMAIN}}}
        login = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}}
        answer, headers = self._request(
            conf.IDENTITY_PORT, "POST", "/v3/auth/tokens", {"Content-Type": "application/json"}, login, None
        )
        token = next((value for key, value in headers.items() if key.lower() == "x-subject-token"), None)
        if answer.status != 201 or token is None:
            raise Failed("stack", f"keystone gives no token: it answers {answer.status}")
        return token

    def _request(
        self, port: int, method: str, path: str, headers: dict[str, str], body: object, file: Path | None
    ) -> tuple[Answer, dict[str, str]]:
        told = self._observer.call(
            "stacks.api.request",
            timeout_s=_CALL_TIMEOUT_S + 5.0,
            method=method,
            url=self._control.url(port) + path,
            headers=headers,
            limit_s=_CALL_TIMEOUT_S,
            body=None if body is None else json.dumps(body),
            file=None if file is None else str(file),
        )
        try:
            content = json.loads(told["text"])
        except ValueError:
            content = told["text"]
        return Answer(told["status"], content, told["began_s"], told["took_s"]), told["headers"]
