"""The little of S3 that a lake needs, in memory: https://docs.aws.amazon.com/AmazonS3/latest/API/API_Operations.html.

Requests must be signed with the right key, but signatures are not checked. Parts of large objects are not supported:
the tests write small ones.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from urllib.request import Request, urlopen
from xml.etree import ElementTree
from xml.sax.saxutils import escape

MODIFIED = "Wed, 01 Jan 2025 00:00:00 GMT"


class S3:
    """One bucket, `lakes`. What is below `/-/` is for the test."""

    def __init__(self):
        self.objects = {}
        self.down = False
        self.may_delete = threading.Event()
        self.may_delete.set()
        self.lock = threading.Lock()
        self.requests = []


def _etag(body):
    return f'"{hashlib.sha256(body).hexdigest()}"'


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    s3: S3

    def log_message(self, *_):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        self.send_header("Content-Length", headers.pop("length", str(len(body))))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def error(self, status, code):
        self.answer(status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode())

    def handle_any(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urlsplit(self.path)
        _, bucket, *rest = unquote(url.path).split("/", 2)
        key, query = "".join(rest), parse_qs(url.query, keep_blank_values=True)
        if bucket == "-":
            self.control(key)
            return
        self.s3.requests.append((self.command, key, self.headers.get("If-None-Match")))
        if self.command == "DELETE" or "delete" in query:
            self.s3.may_delete.wait()
        if self.s3.down:
            self.error(503, "SlowDown")
        elif "Credential=KEY/" not in self.headers.get("Authorization", ""):
            self.error(403, "InvalidAccessKeyId")
        elif bucket != "lakes":
            self.error(404, "NoSuchBucket")
        else:
            with self.s3.lock:
                getattr(self, f"on_{self.command.lower()}")(key, query, body)

    def control(self, word):
        if word in ("down", "up"):
            self.s3.down = word == "down"
        elif word in ("hold", "delete"):
            (self.s3.may_delete.clear if word == "hold" else self.s3.may_delete.set)()
        self.answer(200, json.dumps({"objects": sorted(self.s3.objects), "requests": self.s3.requests}).encode())

    do_GET = do_HEAD = do_PUT = do_DELETE = do_POST = handle_any  # noqa: N815

    def on_get(self, key, query, _):
        if "list-type" in query:
            self.list_objects(query)
            return
        body = self.s3.objects.get(key)
        if body is None:
            self.error(404, "NoSuchKey")
            return
        headers = {"ETag": _etag(body), "Last_Modified": MODIFIED}
        wanted = self.headers.get("Range")
        if wanted is None:
            self.answer(200, body, **headers)
            return
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start = int(first) if first else len(body) - int(last)
        end = min(int(last) + 1, len(body)) if first and last else len(body)
        self.answer(206, body[start:end], Content_Range=f"bytes {start}-{end - 1}/{len(body)}", **headers)

    def on_head(self, key, query, _):
        body = self.s3.objects.get(key)
        if body is None:
            self.answer(404)
        else:
            self.answer(200, ETag=_etag(body), Last_Modified=MODIFIED, length=str(len(body)))

    def on_put(self, key, query, body):
        assert "partNumber" not in query
        assert "x-amz-copy-source" not in self.headers
        if self.headers.get("If-None-Match") == "*" and key in self.s3.objects:
            self.error(412, "PreconditionFailed")
            return
        self.s3.objects[key] = body
        self.answer(200, ETag=_etag(body))

    def on_delete(self, key, query, _):
        self.s3.objects.pop(key, None)
        self.answer(204)

    def on_post(self, key, query, body):
        assert "delete" in query
        keys = [element.text or "" for element in ElementTree.fromstring(body).iter() if element.tag.endswith("Key")]
        for name in keys:
            self.s3.objects.pop(name, None)
        deleted = "".join(f"<Deleted><Key>{escape(name)}</Key></Deleted>" for name in keys)
        self.answer(200, f"<DeleteResult>{deleted}</DeleteResult>".encode())

    def list_objects(self, query):
        prefix, after = query.get("prefix", [""])[0], query.get("start-after", [""])[0]
        delimiter = query.get("delimiter", [""])[0]
        contents, folders = "", set()
        for name in sorted(self.s3.objects):
            if not name.startswith(prefix) or name <= after:
                continue
            rest = name[len(prefix) :]
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.partition(delimiter)[0] + delimiter)
                continue
            body = self.s3.objects[name]
            contents += (
                f"<Contents><Key>{escape(name)}</Key><Size>{len(body)}</Size><ETag>{escape(_etag(body))}</ETag>"
                "<LastModified>2025-01-01T00:00:00.000Z</LastModified></Contents>"
            )
        common = "".join(
            f"<CommonPrefixes><Prefix>{escape(name)}</Prefix></CommonPrefixes>" for name in sorted(folders)
        )
        self.answer(200, f"<ListBucketResult>{contents}{common}</ListBucketResult>".encode())


class Remote:
    """The server as the test sees it."""

    def __init__(self, address):
        self.address = address

    def tell(self, word):
        """`down`: answer errors. `up`: work again. `hold`: let whoever deletes wait. `delete`: let them go on.

        `state`: nothing but its state, which it answers each time.
        """
        with urlopen(f"{self.address}/-/{word}") as answer:
            return json.load(answer)

    def put(self, key, body=b""):
        """Put an object there, as anybody might."""
        headers = {"Authorization": "AWS4-HMAC-SHA256 Credential=KEY/"}
        urlopen(Request(f"{self.address}/lakes/{key}", body, headers, method="PUT")).close()


@contextmanager
def serving():
    """The server, in a process of its own: the driver lets no other thread run while it reads."""
    child = subprocess.Popen([sys.executable, __file__], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        yield Remote(child.stdout.readline().strip())
    finally:
        child.kill()
        child.wait()


if __name__ == "__main__":
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"s3": S3()}))
    print(f"http://127.0.0.1:{server.server_port}", flush=True)  # noqa: T201
    server.serve_forever()
