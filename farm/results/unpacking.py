"""Opens an uploaded archive without believing it: nothing of it can lie outside its folder or fill the disk."""

import gzip
import hashlib
import io
import tarfile
import zlib
from pathlib import Path
from typing import BinaryIO

from farm.results.admission import Rejected

MAX_UPLOAD_BYTES = 64 << 20
MAX_UNPACKED_BYTES = 256 << 20
MAX_MEMBERS = 1000
_MAX_PATH_BYTES = 400
_MAX_NAME_BYTES = 200
_CHUNK_BYTES = 1 << 20


def unpack(archive: BinaryIO, folder: Path) -> dict[str, str]:
    """Unpack a .tar.gz into the empty `folder`; returns the SHA-256 of every file by its path inside.

    Raises Rejected for whatever is not a plain archive of plain files; what was written by then stays. An
    OSError is the farm's own trouble, such as a full disk.
    """
    digests: dict[str, str] = {}
    try:
        with gzip.GzipFile(fileobj=archive) as unzipped:
            metered = _Metered(unzipped, MAX_UNPACKED_BYTES)
            with tarfile.open(fileobj=metered, mode="r|", bufsize=_CHUNK_BYTES) as tar:
                for count, member in enumerate(tar, start=1):
                    if count > MAX_MEMBERS:
                        raise Rejected(f"too large: more than {MAX_MEMBERS} files")
                    _check_kind(member)
                    if member.isreg():
                        path = _safe_path(member.name)
                        digests[path] = _write(tar, member, folder, path)
    except Rejected:
        raise
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise Rejected(f"not a readable .tar.gz: {error}") from None
    except (ValueError, LookupError, ArithmeticError) as error:  # what tarfile makes of senseless headers
        raise Rejected(f"not a readable .tar.gz: {type(error).__name__}: {error}") from None
    return digests


class _Metered(io.RawIOBase):
    """Reads until a limit, so that a small upload cannot grow without end."""

    def __init__(self, source: gzip.GzipFile, limit_bytes: int) -> None:
        self._source = source
        self._left_bytes = limit_bytes

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            raise Rejected(f"too large: more than {MAX_UNPACKED_BYTES >> 20} MiB unpacked")
        return data


def _check_kind(member: tarfile.TarInfo) -> None:
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE) or member.issparse():
        raise Rejected(f"{member.name!r} is a link, a device or another special member")
    if member.isdir():
        _safe_path(member.name)


def _safe_path(name: str) -> str:
    """The member's path inside the bundle, without a leading './'."""
    if name.startswith("/"):
        raise Rejected(f"{name!r} is an absolute path")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise Rejected(f"{name!r} leads out of the bundle")
    path = "/".join(parts)
    try:
        length = len(path.encode())
        longest = max((len(part.encode()) for part in parts), default=0)
    except UnicodeEncodeError:
        raise Rejected(f"{name!r} is not UTF-8") from None
    if length > _MAX_PATH_BYTES or longest > _MAX_NAME_BYTES or not path.isprintable():
        raise Rejected(f"{name!r} is not an acceptable file name")
    return path


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, path: str) -> str:
    source = tar.extractfile(member)
    if source is None or not path:
        raise Rejected(f"{member.name!r} is not a file")
    digest = hashlib.sha256()
    target = folder / path
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        file = target.open("xb")
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise Rejected(f"{path!r} is there twice") from None
    with file:
        while chunk := source.read(_CHUNK_BYTES):
            digest.update(chunk)
            file.write(chunk)
    return digest.hexdigest()
