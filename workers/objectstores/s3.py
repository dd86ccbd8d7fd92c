"""S3 as the same store speaks it: requests with signature version 4, and what its answers say."""

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from scenarios.contract import Failed
from workers.objectstores.wire import Answer, Endpoint, Request, S3Access

_REGION = "us-east-1"
_UPLOAD_ID = re.compile(rb"<UploadId>([A-Za-z0-9_.~+/=-]{1,128})</UploadId>")


def signed(
    endpoint: Endpoint,
    method: str,
    path: str,
    query: Mapping[str, str] | None = None,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
) -> Request:
    """A request that the account's owner signs. What is sent beside it (a payload) is held against its MD5 instead."""
    access = access_of(endpoint)
    asked = "&".join(f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in sorted((query or {}).items()))
    at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    content = hashlib.sha256(body).hexdigest() if body else "UNSIGNED-PAYLOAD"
    own = {"host": f"{endpoint.address}:{access.port}", "x-amz-content-sha256": content, "x-amz-date": at}
    own |= {name: value for name, value in (headers or {}).items() if name.startswith("x-amz-")}
    own = dict(sorted(own.items()))
    names = ";".join(own)
    lines = [f"{name}:{value}" for name, value in own.items()]
    canonical = "\n".join([method, quote(path, safe="/"), asked, *lines, "", names, content])
    scope = f"{at[:8]}/{_REGION}/s3/aws4_request"
    to_sign = "\n".join(["AWS4-HMAC-SHA256", at, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    signature = hmac.new(_signing_key(access.secret, scope), to_sign.encode(), hashlib.sha256).hexdigest()
    authorization = f"AWS4-HMAC-SHA256 Credential={access.key}/{scope},SignedHeaders={names},Signature={signature}"
    del own["host"]  # which http.client sends by itself
    target = quote(path, safe="/") + (f"?{asked}" if asked else "")
    return Request(method, target, {**own, "Authorization": authorization, **(headers or {})}, body)


def access_of(endpoint: Endpoint) -> S3Access:
    if endpoint.s3 is None:
        raise Failed("farm", "the deployment was not asked to speak S3")
    return endpoint.s3


def content_md5(md5: str) -> dict[str, str]:
    """The header that makes the store refuse anything else, from the hexadecimal digest."""
    return {"Content-MD5": base64.b64encode(bytes.fromhex(md5)).decode()}


def upload_id(answer: Answer) -> str:
    """Of the multipart upload that was begun."""
    found = _UPLOAD_ID.search(answer.body)
    if answer.status != 200 or found is None:
        raise Failed("stack", f"beginning a multipart upload: {answer.status} {answer.body[:160]!r}")
    return found[1].decode()


def completion(md5s: Sequence[str]) -> bytes:
    """The list of parts that ends a multipart upload."""
    parts = (
        f'<Part><PartNumber>{number}</PartNumber><ETag>"{md5}"</ETag></Part>' for number, md5 in enumerate(md5s, 1)
    )
    return f"<CompleteMultipartUpload>{''.join(parts)}</CompleteMultipartUpload>".encode()


def whole_etag(md5s: Sequence[str]) -> str:
    """What S3 calls an object of these parts."""
    digests = b"".join(bytes.fromhex(md5) for md5 in md5s)
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(md5s)}"


def _signing_key(secret: str, scope: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for word in scope.split("/"):
        key = hmac.new(key, word.encode(), hashlib.sha256).digest()
    return key
