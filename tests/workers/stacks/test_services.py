"""Services that do not come up: which component is told, in which stage, and with what words of its log."""

import json
from pathlib import Path
from typing import Any

import pytest

from scenarios.contract import Failed
from workers.sandbox import Walls
from workers.stacks.services import JOB, PYTHON, SUPERVISOR, Service, Services

pytestmark = pytest.mark.machine

KNOWN = {"api": Service("nova", "nova API"), "prepare": Service("", "databases")}
WAITS = [PYTHON, "-c", "print('I wait', flush=True); import time; time.sleep(60)"]
NOISY = [
    PYTHON,
    "-c",
    "print('2026 ERROR no such table', flush=True); print('GET /', flush=True); import time; time.sleep(60)",
]
FAILS = [PYTHON, "-c", "raise SystemExit('no such module')"]
CASES: dict[str, tuple[dict[str, Any], str]] = {
    "ends": (
        {"services": {"api": FAILS}},
        "component 'nova' (at: deployment): openstack's nova API ended with 1: no such module",
    ),
    "is silent": (
        {"services": {"api": NOISY}, "ready": {"api": ["127.0.0.1", 9, "/"]}},
        "component 'nova' (at: deployment): openstack's nova API does not answer with 200 after 2 s: 2026 ERROR no such table",
    ),
    "cannot be prepared": (
        {"prepare": [FAILS], "services": {"api": WAITS}},
        "openstack (at: deployment): openstack's databases ended with 1: no such module",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_component_and_the_stage_are_named(case: str, tmp_path: Path) -> None:
    parts, told = CASES[case]
    job = {"prepare": [], "ready": {"api": ["127.0.0.1", 9, "/"]}, **parts}
    walls = Walls(None, SUPERVISOR, {JOB: json.dumps(job)}, {}, (), {}, processes=20, memory_mib=512)
    services = Services("openstack", KNOWN, ready_timeout_s=2)
    with pytest.raises(Failed) as caught:
        services.start(walls, lease="services-test", run_dir=_made(tmp_path / "run"))
    assert (caught.value.fault, str(caught.value)) == ("stack", told)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
