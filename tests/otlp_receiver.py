"""A collector as far as a test needs one: takes OTLP over HTTP or gRPC, decodes the real messages, keeps the spans."""

import gzip
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)


class Received:
    """spans: (resource attributes, span) of everything that came. headers: of each export that was taken.

    calls: how many exports there were, refused ones too. `answer` may be another status, `body` another body; while
    `gate` is not set, nothing is answered.
    """

    def __init__(self):
        self.url = ""
        self.spans, self.headers, self.paths = [], [], []
        self.answer, self.body = 200, b""
        self.gate = threading.Event()
        self.gate.set()
        self.called, self.calls = threading.Event(), 0

    def take(self, request, headers, path=""):
        self.headers.append(headers)
        self.paths.append(path)
        for resource_spans in request.resource_spans:
            resource = attributes_of(resource_spans.resource)
            self.spans += [(resource, span) for scope in resource_spans.scope_spans for span in scope.spans]

    def named(self, start):
        """The spans whose name begins so."""
        return [span for _, span in self.spans if span.name.startswith(start)]


def attributes_of(message):
    """The attributes of a resource, a span, a link or an event, as Python has them."""
    found = {}
    for pair in message.attributes:
        (value,) = MessageToDict(pair.value).values()
        found[pair.key] = int(value) if pair.value.HasField("int_value") else value
    return found


@contextmanager
def http_collector():
    """Over HTTP, for the length of a block."""
    received = Received()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            received.calls += 1
            received.called.set()
            received.gate.wait(30)
            if received.answer == 200:
                plain = gzip.decompress(body) if self.headers.get("content-encoding") == "gzip" else body
                received.take(ExportTraceServiceRequest.FromString(plain), dict(self.headers), self.path)
            try:
                self.send_response(received.answer)
                self.send_header("content-length", str(len(received.body)))
                self.end_headers()
                self.wfile.write(received.body)
            except OSError:  # who asked is gone
                pass

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    received.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield received
    finally:
        received.gate.set()
        server.shutdown()
        server.server_close()
        thread.join(10)


@contextmanager
def grpc_collector():
    """The same over gRPC."""
    import grpc
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    received = Received()

    class Service(TraceServiceServicer):
        def Export(self, request, context):  # noqa: N802 - gRPC's own
            received.called.set()
            received.take(request, dict(context.invocation_metadata()))
            return ExportTraceServiceResponse()

    server = grpc.server(ThreadPoolExecutor(2))
    add_TraceServiceServicer_to_server(Service(), server)
    received.url = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield received
    finally:
        server.stop(0).wait(5)
