"""Whether something failed for want of room on a disk: that is never a check-in's fault."""

import contextlib
import errno
import os
from collections.abc import Iterator

from scenarios.contract import Failed

_FULL = (errno.ENOSPC, errno.EDQUOT)
_WORDS = tuple(os.strerror(number) for number in _FULL)


def is_full(error: OSError) -> bool:
    """shutil tells of several errors at once, in words."""
    return error.errno in _FULL or told_full(str(error))


def told_full(text: str) -> bool:
    """Whether a program's words say so."""
    return any(words in text for words in _WORDS)


@contextlib.contextmanager
def needed(what: str) -> Iterator[None]:
    """Raises Failed (farm) where there is no room for `what`."""
    try:
        yield
    except OSError as error:
        if not is_full(error):
            raise
        raise Failed("farm", f"there is no room left for {what}") from None
