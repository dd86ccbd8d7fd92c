"""An OpenStack as its users see it: a token, the catalogue of services, and requests to their APIs.

All it needs is where the identity service is and who asks: it does not matter who has deployed the services.
"""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scenarios.contract import Failed
from workers.agent import AgentLink

_CALL_TIMEOUT_S = 60.0
_COMPUTE_VERSION = "compute 2.81"  # that of Ussuri: the first that fetches images before guests ask for them
_VERSIONS = {"compute": "/v2.1", "image": "/v2"}  # of APIs, where the catalogue does not say them
_DEFAULT_DOMAIN = {"id": "default"}
_COMPONENTS = {"compute": "nova", "image": "glance", "identity": "keystone", "object-store": "swift"}


@dataclass(frozen=True)
class Login:
    """Who asks, and which identity service: what a `clouds.yaml` tells of a cloud. Domains have an `id` or a `name`."""

    auth_url: str  # with the API's version: http://10.0.0.1:5000/v3
    user: str
    password: str = field(repr=False)
    project: str
    region: str | None = None
    user_domain: Mapping[str, str] = field(default_factory=lambda: _DEFAULT_DOMAIN)
    project_domain: Mapping[str, str] = field(default_factory=lambda: _DEFAULT_DOMAIN)


@dataclass(frozen=True)
class Answer:
    """`began_s` is the observer's monotonic clock."""

    status: int
    headers: Mapping[str, str]  # names in lower case
    body: Any
    began_s: float
    took_s: float


@dataclass(frozen=True)
class _Session:
    token: str
    catalogue: Any


class Client:
    """A user of the services, at the observer's place. May be used from several threads at once."""

    def __init__(self, observer: AgentLink, login: Login, last_words: Callable[[str], str] | None = None) -> None:
        """`last_words` says what a component's log tells of an error, where somebody can read it."""
        self._observer = observer
        self._login = login
        self._last_words = last_words
        self._lock = threading.Lock()
        self._session: _Session | None = None

    def token(self) -> str:
        """For every service that trusts the identity service."""
        return self._logged_in().token

    def endpoint(self, kind: str) -> str:
        """Where the catalogue says that the service of this type is, for its users. Raises Failed (stack)."""
        for service in self._logged_in().catalogue:
            for endpoint in service["endpoints"] if service["type"] == kind else ():
                if endpoint["interface"] == "public" and self._login.region in (None, endpoint["region_id"]):
                    return str(endpoint["url"]).rstrip("/")
        raise self.failure("identity", f"the catalogue has no service of type {kind!r}")

    def compute(self, method: str, path: str, body: object = None, *, may_miss: bool = False) -> Answer:
        return self._ask("compute", method, path, body, may_miss=may_miss)

    def image(
        self, method: str, path: str, body: object = None, *, file: Path | None = None, may_miss: bool = False
    ) -> Answer:
        return self._ask("image", method, path, body, file=file, may_miss=may_miss)

    def computes_up(self) -> set[str]:
        """Hosts on which Nova has a compute that answers; none as long as Nova cannot say."""
        answer = self.compute("GET", "/os-hypervisors/detail", may_miss=True)
        listed = answer.body.get("hypervisors", []) if isinstance(answer.body, dict) else []
        return {entry["service"]["host"] for entry in listed if entry["state"] == "up" and entry["status"] == "enabled"}

    def failure(self, kind: str, what: str, *logs: str) -> Failed:
        """That a service of this type answered wrongly, with what its component's log, or these, tell of it."""
        component = _COMPONENTS[kind]
        words = self._last_words or (lambda log: "")
        told = " | ".join(filter(None, (words(log) for log in logs or (component,))))
        return Failed("stack", f"component '{component}' (at: use): {what}" + (f"; its log: {told}" if told else ""))

    def _ask(
        self,
        kind: str,
        method: str,
        path: str,
        body: object = None,
        *,
        file: Path | None = None,
        may_miss: bool = False,
    ) -> Answer:
        """One request to a service; raises Failed (stack) for an error, but not for 404 with `may_miss`."""
        content = "application/octet-stream" if file is not None else "application/json"
        if kind == "image" and method == "PATCH":
            content = "application/openstack-images-v2.1-json-patch"
        headers = {"X-Auth-Token": self.token(), "OpenStack-API-Version": _COMPUTE_VERSION, "Content-Type": content}
        version = _VERSIONS[kind]
        url = self.endpoint(kind).removesuffix(version) + version + path
        answer = self._request(kind, method, url, headers, body, file)
        if answer.status >= 300 and not (may_miss and answer.status == 404):
            told = json.dumps(answer.body) if not isinstance(answer.body, str) else answer.body
            raise self.failure(kind, f"{method} {path} answers {answer.status}: {' '.join(told.split())[:300]}")
        return answer

    def _logged_in(self) -> _Session:
        with self._lock:
            if self._session is None:
                self._session = self._log_in()
            return self._session

    def _log_in(self) -> _Session:
        login = self._login
        user = {"name": login.user, "domain": dict(login.user_domain), "password": login.password}
        scope = {"project": {"name": login.project, "domain": dict(login.project_domain)}}
        asked = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}}
        url = f"{login.auth_url}/auth/tokens"
        answer = self._request("identity", "POST", url, {"Content-Type": "application/json"}, asked)
        token = answer.headers.get("x-subject-token")
        if answer.status != 201 or token is None:
            raise self.failure("identity", f"there is no token: POST {url} answers {answer.status}")
        return _Session(token, answer.body["token"].get("catalog", []))

    def _request(
        self, kind: str, method: str, url: str, headers: dict[str, str], body: object = None, file: Path | None = None
    ) -> Answer:
        try:
            told = self._observer.call(
                "stacks.api.request",
                timeout_s=_CALL_TIMEOUT_S + 5.0,
                method=method,
                url=url,
                headers=headers,
                limit_s=_CALL_TIMEOUT_S,
                body=None if body is None else json.dumps(body),
                file=None if file is None else str(file),
            )
        except Failed as error:
            if error.fault != "stack":
                raise
            raise self.failure(kind, str(error)) from None
        try:
            content = json.loads(told["text"])
        except ValueError:
            content = told["text"]
        named = {name.lower(): value for name, value in told["headers"].items()}
        return Answer(told["status"], named, content, told["began_s"], told["took_s"])
