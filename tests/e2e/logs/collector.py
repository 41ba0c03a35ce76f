"""An OpenTelemetry collector for tests: takes spans over HTTP (OTLP, protobuf) and keeps them; or hangs, on request."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


class Collector:
    """``spans`` holds what came, as (resource attributes, span)."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.spans: list[tuple[dict[str, Any], Any]] = []
        self.hang = threading.Event()
        self.hung = threading.Event()
        self.closing = threading.Event()

    def about(self, message_id: str) -> list[Any]:
        """The spans of this message so far, in the order of their start."""
        found = [span for _, span in self.spans if attributes(span).get("messaging.message.id") == message_id]
        return sorted(found, key=lambda span: span.start_time_unix_nano)


def attributes(of: Any) -> dict[str, Any]:
    """The attributes of a span, a resource or an event as a dict."""
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in of.attributes}


@contextmanager
def running_collector() -> Iterator[Collector]:
    """Serve on a port of this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            if collector.hang.is_set():
                collector.hung.set()
                collector.closing.wait()
                return
            request = ExportTraceServiceRequest.FromString(data)
            for group in request.resource_spans:
                for scope in group.scope_spans:
                    collector.spans += [(attributes(group.resource), span) for span in scope.spans]
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collector = Collector(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield collector
        finally:
            collector.closing.set()
            server.shutdown()
            thread.join()
