"""Buckets of Google's, as far as the store's client library asks of them: the XML interface, by its documentation.

Our own reading of it (cloud.google.com/storage/docs/xml-api, "Request preconditions"): it shows what is sent, and that
answers are understood; not what Google does. The emulators there are do not take writes by this interface.
"""

import json
import socket
import threading
from contextlib import suppress
from email.utils import formatdate
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from app.models.store_access import StoreAccess

LISTED_AT = "2026-01-02T03:04:05.678Z"


class GoogleBuckets:
    """A server in this process, with buckets in memory. A context manager.

    asked: (method, object, x-goog-if-generation-match) of each request for an object.
    """

    scheme = "gs"

    def __init__(self, directory):
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self._account = directory, directory / "account.json"
        self.buckets, self.asked, self.connections = {}, [], set()
        self._generation, self._lock = 1_000, threading.Lock()

    @property
    def access(self):
        """By an account that needs no token, which the client library has for emulators."""
        return StoreAccess(service_account_file=self._account, allow_http=True)

    def make_bucket(self, name):
        """Empty; no effect if there is one."""
        self.buckets.setdefault(name, {})

    def __enter__(self):
        buckets = self
        answers = type("Answers", (_Answers,), {"world": buckets})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), answers)
        self._server.daemon_threads = True
        page = {"gcs_base_url": f"http://127.0.0.1:{self._server.server_address[1]}", "disable_oauth": True}
        self._account.write_text(json.dumps(page | {"client_email": "", "private_key": "", "private_key_id": ""}))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.kill()

    def kill(self):
        """Nobody answers any more."""
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self.connections):  # those that clients keep are served by threads of their own
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    def put(self, bucket, name, wanted, content):
        """(status, generation). wanted: the generation that has to be there, 0 for none, None for any."""
        with self._lock:
            there = self.buckets[bucket].get(name)
            if wanted is not None and int(wanted) != (there[0] if there else 0):
                return HTTPStatus.PRECONDITION_FAILED, 0
            self._generation += 1
            self.buckets[bucket][name] = (self._generation, content)
            return HTTPStatus.OK, self._generation


class _Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    world = None

    def setup(self):
        super().setup()
        self.world.connections.add(self.connection)

    def finish(self):
        self.world.connections.discard(self.connection)
        super().finish()

    def log_message(self, *_):
        pass

    def _where(self):
        path = urlsplit(self.path)
        _, bucket, *name = unquote(path.path).split("/", 2)
        return bucket, "".join(name), parse_qs(path.query)

    def _asked(self):
        bucket, name, _ = self._where()
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        wanted = self.headers.get("x-goog-if-generation-match")
        if name:
            self.world.asked.append((self.command, name, wanted))
        if bucket not in self.world.buckets:
            self._say(HTTPStatus.NOT_FOUND, _error("NoSuchBucket", "The specified bucket does not exist."))
            return None
        return bucket, name, wanted, content

    def _say(self, status, content=b"", **headers):
        self.send_response(status)
        for header, value in headers.items():
            self.send_header(header.replace("_", "-"), str(value))
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(content)

    def do_PUT(self):
        if asked := self._asked():
            status, generation = self.world.put(*asked)
            if status is HTTPStatus.OK:
                self._say(status, ETag=f'"{generation}"', x_goog_generation=generation)
            else:
                self._say(status, _error("PreconditionFailed", "At least one of the pre-conditions did not hold."))

    def do_GET(self):
        if (asked := self._asked()) is None:
            return
        bucket, name, *_ = asked
        if not name:
            self._say(HTTPStatus.OK, self._listing(bucket), Content_Type="application/xml")
        elif (found := self.world.buckets[bucket].get(name)) is None:
            self._say(HTTPStatus.NOT_FOUND, _error("NoSuchKey", "The specified key does not exist."))
        else:
            generation, content = found
            facts = {
                "ETag": f'"{generation}"',
                "x_goog_generation": generation,
                "Last_Modified": formatdate(usegmt=True),
            }
            self._say(HTTPStatus.OK, content, **facts)

    def do_DELETE(self):
        if asked := self._asked():
            gone = self.world.buckets[asked[0]].pop(asked[1], None)
            self._say(HTTPStatus.NOT_FOUND if gone is None else HTTPStatus.NO_CONTENT)

    def _listing(self, bucket):
        prefix = self._where()[2].get("prefix", [""])[0]
        objects = "".join(
            f"<Contents><Key>{escape(name)}</Key><LastModified>{LISTED_AT}</LastModified>"
            f'<ETag>"{generation}"</ETag><Size>{len(content)}</Size></Contents>'
            for name, (generation, content) in sorted(self.world.buckets[bucket].items())
            if name.startswith(prefix)
        )
        return f"<?xml version='1.0' encoding='UTF-8'?><ListBucketResult>{objects}</ListBucketResult>".encode()


def _error(code, message):
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
