"""An OpenStack as its users see it: a token, the catalogue of services, and requests to their APIs.

All it needs is where the identity service is and who asks: it does not matter who has deployed the services.
"""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from scenarios.contract import Failed, Refused, ScenarioError
from workers.agent import AgentLink

_CALL_TIMEOUT_S = 60.0
_COMPUTE_VERSION = "compute 2.81"  # that of Ussuri: the first that fetches images before guests ask for them
_VERSIONS = {"compute": "/v2.1", "image": "/v2", "network": "/v2.0"}  # of APIs
_DEFAULT_DOMAIN = {"id": "default"}
_COMPONENTS = {
    "compute": "nova",
    "image": "glance",
    "identity": "keystone",
    "network": "neutron",
    "object-store": "swift",
}


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
    project_id: str | None = None  # instead of its name and domain
    is_application: bool = False  # the user is an application credential, by its id, and the password its secret
    interface: str = "public"
    ca_file: str | None = None

    def asked(self) -> dict[str, object]:
        """The body of a request for a token."""
        if self.is_application:
            credential = {"id": self.user, "secret": self.password}
            return {"auth": {"identity": {"methods": ["application_credential"], "application_credential": credential}}}
        user = {"name": self.user, "domain": dict(self.user_domain), "password": self.password}
        named = {"name": self.project, "domain": dict(self.project_domain)}
        scope = {"project": {"id": self.project_id} if self.project_id else named}
        return {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": scope}}


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
    project: str


class Client:
    """A user of the services, at the observer's place. May be used from several threads at once."""

    def __init__(self, observer: AgentLink, login: Login, last_words: Callable[[str], str] | None = None) -> None:
        """`last_words` says what a component's log tells of an error, where somebody can read it."""
        self._observer = observer
        self.login = login
        self._last_words = last_words
        self._lock = threading.Lock()
        self._session: _Session | None = None

    def token(self) -> str:
        """For every service that trusts the identity service."""
        return self._logged_in().token

    def forget_token(self) -> None:
        """Log in anew before the next request: a token lasts so long, and a session may last longer."""
        with self._lock:
            self._session = None

    def project(self) -> str:
        """The id of the project that it acts in."""
        return self._logged_in().project

    def has(self, kind: str) -> bool:
        """Whether the catalogue has a service of this type."""
        return any(service["type"] == kind for service in self._logged_in().catalogue)

    def endpoint(self, kind: str) -> str:
        """Where the catalogue says that the service of this type is, for its users. Raises Failed (stack)."""
        for service in self._logged_in().catalogue:
            for endpoint in service["endpoints"] if service["type"] == kind else ():
                is_ours = endpoint["interface"] == self.login.interface
                if is_ours and self.login.region in (None, endpoint["region_id"]):
                    return str(endpoint["url"]).rstrip("/")
        raise self.failure("identity", f"the catalogue has no service of type {kind!r}")

    def compute(self, method: str, path: str, body: object = None, *, may_miss: bool = False) -> Answer:
        return self._ask("compute", method, path, body, may_miss=may_miss)

    def image(
        self, method: str, path: str, body: object = None, *, file: Path | None = None, may_miss: bool = False
    ) -> Answer:
        return self._ask("image", method, path, body, file=file, may_miss=may_miss)

    def network(self, method: str, path: str, body: object = None, *, may_miss: bool = False) -> Answer:
        return self._ask("network", method, path, body, may_miss=may_miss)

    def store(self, method: str, path: str, *, may_miss: bool = False) -> Answer:
        """Of the project's account in the object store."""
        return self._ask("object-store", method, path, may_miss=may_miss)

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

    def compute_version(self) -> str:
        """Of Nova's API, as requests name it."""
        return _COMPUTE_VERSION

    def document(self, kind: str, path: str) -> Any:
        """What a service says of itself at a path below its address, which needs no version; empty where nothing."""
        url = self.endpoint(kind).removesuffix(_VERSIONS.get(kind, "")) + path
        body = self._request(kind, "GET", url, {"X-Auth-Token": self.token()}).body
        return body if isinstance(body, dict) else {}

    def refusal(self, kind: str, status: int, what: str) -> ScenarioError:
        """What an answer with an error's status is."""
        if status == HTTPStatus.CONFLICT:
            return Refused("stack", f"component '{_COMPONENTS[kind]}': {what}")
        return self.failure(kind, what)

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
        headers = {"X-Auth-Token": self.token(), "Content-Type": content}
        if kind == "compute":
            headers["OpenStack-API-Version"] = self.compute_version()
        answer = self._request(kind, method, self._base(kind) + path, headers, body, file)
        if answer.status >= 300 and not (may_miss and answer.status == 404):
            told = json.dumps(answer.body) if not isinstance(answer.body, str) else answer.body
            raise self.refusal(kind, answer.status, f"{method} {path} answers {answer.status}: {_line(told)}")
        return answer

    def _base(self, kind: str) -> str:
        """Where paths of a service's API begin: the catalogue may say its version, and Nova's whose it is."""
        url, version = self.endpoint(kind), _VERSIONS.get(kind, "")
        return url if f"{version}/" in f"{url}/" else url + version

    def _logged_in(self) -> _Session:
        with self._lock:
            if self._session is None:
                self._session = self._log_in()
            return self._session

    def _log_in(self) -> _Session:
        url = f"{self.login.auth_url}/auth/tokens"
        answer = self._request("identity", "POST", url, {"Content-Type": "application/json"}, self.login.asked())
        token = answer.headers.get("x-subject-token")
        if answer.status != 201 or token is None:
            raise self.failure("identity", f"there is no token: POST {url} answers {answer.status}")
        given = answer.body["token"]
        return _Session(token, given.get("catalog", []), str(given.get("project", {}).get("id", "")))

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
                ca_file=self.login.ca_file,
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


def _line(text: str) -> str:
    return " ".join(text.split())[:300]
