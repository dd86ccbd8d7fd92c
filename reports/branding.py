"""Donors' logos and links, taken over only where they are harmless on our pages."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from urllib.parse import urlsplit

_MOST_BYTES = 256 * 1024
_PNG = b"\x89PNG\r\n\x1a\n"
_DRAWING = frozenset(
    (
        *("svg", "g", "defs", "title", "desc", "path", "rect", "circle", "ellipse", "line", "polyline", "polygon"),
        *("text", "tspan", "linearGradient", "radialGradient", "stop", "clipPath", "mask", "symbol", "use"),
    )
)


def safe_logo(path: Path) -> tuple[str, bytes] | None:
    """The logo's suffix and bytes, or None for what is no plain picture.

    An SVG opened by itself may run scripts and fetch; only drawing elements pass, without handlers and links out.
    """
    if not path.is_file() or path.stat().st_size > _MOST_BYTES:
        return None
    content = path.read_bytes()
    if content.startswith(_PNG):
        return ".png", content
    return (".svg", content) if _only_draws(content) else None


def _only_draws(content: bytes) -> bool:
    if b"<!" in content.replace(b"<!--", b""):  # no document type: entities could hide anything
        return False
    try:
        root = ElementTree.fromstring(content)
    except ElementTree.ParseError:
        return False
    if _local(root.tag) != "svg":
        return False
    return all(_local(element.tag) in _DRAWING and _plain_attributes(element) for element in root.iter())


def _plain_attributes(element: ElementTree.Element) -> bool:
    for name, value in element.attrib.items():
        local = _local(name).lower()
        if local.startswith("on") or (local == "href" and not value.startswith("#")):
            return False
        if re.search(r"url\s*\(\s*[\"']?\s*[^#\"'\s]|javascript:|@import", value, re.IGNORECASE):
            return False
    return True


def _local(name: object) -> str:
    return str(name).rsplit("}", 1)[-1]


def safe_link(url: str) -> str | None:
    """The address if a reader may be sent there: http or https with a host."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return None
    return url if parts.scheme in ("http", "https") and parts.netloc else None
