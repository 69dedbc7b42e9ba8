"""Servers on loopback: files with ranges and ETags, faults to order, and the part of a Hub that a download needs."""

import hashlib
import http.server
import re
import threading
import time
from collections import defaultdict
from contextlib import suppress
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FileServer:
    """Serves `files` (path -> bytes). `faults` (path -> list) are answered with first, one for each GET.

    `seen` has (method, path, headers) of every request. `without_ranges` are paths that are always sent whole,
    `deaf_to_if_range` those of which a part is sent whatever If-Range says.
    """

    def __init__(self, files=None):
        self.files = dict(files or {})
        self.faults = defaultdict(list)
        self.head_faults = defaultdict(list)
        self.types = {}
        self.etags = {}
        self.without_ranges, self.deaf_to_if_range = set(), set()
        self.seen = []
        self.seconds_per_chunk = 0.0
        handler = type("Handler", (_Handler,), {"owner": self})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self.other_host = f"http://localhost:{self.port}"

    def __enter__(self):
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error):
        self._server.shutdown()
        self._server.server_close()

    def etag(self, path):
        return self.etags.get(path, f'"{hashlib.sha256(self.files[path]).hexdigest()[:16]}"')

    def gets(self, path):
        """Headers of the GET requests of a path."""
        return [headers for method, seen, headers in self.seen if (method, seen) == ("GET", path)]

    def special(self, handler, path):
        """For servers that answer some paths themselves; whether this one was."""
        return False


def status(code, **headers):
    """An answer without a file."""

    def fault(handler, path):
        handler.answer(code, {name.replace("_", "-"): value for name, value in headers.items()}, b"no file here")

    return fault


def redirect(to, code=302):
    """A redirect, absolute or relative."""
    return status(code, Location=to)


def drop_after(count):
    """The connection ends after `count` bytes of the body."""

    def fault(handler, path):
        content = handler.owner.files[path]
        start = handler.start_of_range(path, len(content))
        handler.begin(path, content, start)
        handler.wfile.write(content[start : start + count])
        handler.wfile.flush()
        handler.close_connection = True
        with suppress(OSError):
            handler.connection.shutdown(2)

    return fault


def wrong_range(handler, path):
    """A part that begins elsewhere than asked for."""
    content = handler.owner.files[path]
    handler.answer(206, {"Content-Range": f"bytes 0-9/{len(content)}"}, content[:10])


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: FileServer

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do("HEAD", self.owner.head_faults)

    def do_GET(self):
        self.do("GET", self.owner.faults)

    def do(self, method, faults):
        path = urlsplit(self.path).path if self.path.startswith("http") else self.path
        self.owner.seen.append((method, path, {name.lower(): value for name, value in self.headers.items()}))
        if faults[path]:
            faults[path].pop(0)(self, path)
        elif not self.owner.special(self, path):
            if path in self.owner.files:
                self.send(path)
            else:
                self.answer(404, {}, b"absent")

    def answer(self, code, headers, body):
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def start_of_range(self, path, length):
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if match is None or path in self.owner.without_ranges:
            return 0
        wanted = self.headers.get("If-Range")
        same = wanted is None or wanted == self.owner.etag(path) or path in self.owner.deaf_to_if_range
        return int(match[1]) if same else 0

    def begin(self, path, content, start):
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("Content-Type", self.owner.types.get(path, "application/octet-stream"))
        if self.owner.etag(path):
            self.send_header("ETag", self.owner.etag(path))
        self.end_headers()

    def send(self, path):
        content = self.owner.files[path]
        start = self.start_of_range(path, len(content))
        if start and start >= len(content):
            self.answer(416, {"Content-Range": f"bytes */{len(content)}"}, b"")
            return
        self.begin(path, content, start)
        if self.command == "HEAD":
            return
        with suppress(OSError):
            for first in range(start, len(content), 1 << 16):
                self.wfile.write(content[first : min(first + (1 << 16), len(content))])
                time.sleep(self.owner.seconds_per_chunk)


class HubServer(FileServer):
    """What huggingface_hub asks of its endpoint for one file; contents are sent from another host, as the Hub does."""

    def put(self, repo, path, content, revision="main"):
        """Add a file; returns its sha256."""
        digest = hashlib.sha256(content).hexdigest()
        self.files[f"/cdn/{digest}"] = content
        for name in (revision, COMMIT):
            self.files[f"/{repo}/resolve/{name}/{path}"] = content
        return digest

    def special(self, handler, path):
        if "/resolve/" not in path or path not in self.files:
            return False
        digest = hashlib.sha256(self.files[path]).hexdigest()
        headers = {
            "X-Repo-Commit": COMMIT,
            "X-Linked-Etag": f'"{digest}"',
            "X-Linked-Size": str(len(self.files[path])),
            "Location": f"{self.other_host}/cdn/{digest}",
        }
        handler.answer(302, headers, b"")
        return True
