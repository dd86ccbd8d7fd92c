"""The publication process: judges and publishes whenever something new came in."""

import datetime
import logging
import threading

from farm.inventory import load_inventory
from farm.judge import judge
from farm.results.database import open_database
from farm.settings import Settings
from reports.site import publish
from scenarios.strict import BadData

_POLL_S = 1.0
_log = logging.getLogger(__name__)


def watch(settings: Settings, stop: threading.Event) -> None:
    """Judge and publish until `stop` is set, looking once a second for anything new.

    The inventory is read anew each time; while a file of it is bad, the last good one stands. Meant for a process
    of its own at low priority: it shares the machine with what is measured.
    """
    engine = open_database(settings.database_url)
    inventory = load_inventory(settings.farm.inventory, settings.farm.clusters)
    complaint = ""
    while not stop.is_set():
        trouble = ""
        try:
            inventory = load_inventory(settings.farm.inventory, settings.farm.clusters)
        except BadData as error:
            trouble = f"{error} (the last good inventory stands)"
        try:
            now = datetime.datetime.now(datetime.UTC)
            judge(engine, settings, inventory, now)
            publish(engine, settings, inventory, now)
        except Exception as error:  # noqa: BLE001  measuring goes on, the last site stands, the next look tries again
            trouble = f"nothing was published: {error!r}"
        if trouble and trouble != complaint:
            _log.warning("%s", trouble)
        complaint = trouble
        stop.wait(_POLL_S)
    engine.dispose()
