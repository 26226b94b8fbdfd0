"""A server on this machine that answers what a test tells it to."""

import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs


class Served:
    """`answer`: (status, body) or a function of path and form; `asked` has what was asked."""

    def __init__(self, answer=(200, b"")):
        self.answer, self.asked, self.url = answer, [], ""


@contextmanager
def served(answer=(200, b"")):
    """The server, at `url`."""
    state = Served(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self):
            length = int(self.headers.get("content-length") or 0)
            form = {name: values[0] for name, values in parse_qs(self.rfile.read(length).decode()).items()}
            state.asked.append((self.command, self.path, form))
            status, body = state.answer(self.path, form) if callable(state.answer) else state.answer
            self.send_response(status)
            if isinstance(body, bytes):
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                return
            self.send_header("connection", "close")
            self.end_headers()
            self.close_connection = True
            try:
                for chunk in body:
                    self.wfile.write(chunk)
            except OSError:
                return

        do_GET = do_POST = _any  # noqa: N815 - http.server's names

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def trickle(chunk=b"# a line\n", every_s=0.02, times=500):
    """A body that never quite ends."""
    for _ in range(times):
        time.sleep(every_s)
        yield chunk
