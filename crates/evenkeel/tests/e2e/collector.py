"""A collector: takes OTLP/HTTP JSON, reads it with the published protobuf definitions, and tells on GET what came.

Reading is strict: an unknown field or a value of the wrong type is answered with 400 and remembered.
"""
import base64
import json
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google.protobuf.json_format import Parse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

spans, wrong, fields = [], [], []
# Statuses to answer with before taking anything: as many as the third argument lists.
refusals = [int(status) for status in sys.argv[3].split(",") if status] if len(sys.argv) > 3 else []


def proto_of(text):
    # The JSON of OTLP has ids in hexadecimal where that of protobuf has base64.
    document = json.loads(text)
    for resource in document["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                for key in ("traceId", "spanId", "parentSpanId"):
                    if key in span:
                        span[key] = base64.b64encode(bytes.fromhex(span[key])).decode()
    return Parse(json.dumps(document), ExportTraceServiceRequest())


def value_of(value):
    return getattr(value, value.WhichOneof("value"))


def told(span, resource):
    return {
        "service": {a.key: value_of(a.value) for a in resource.attributes}.get("service.name"),
        "trace": span.trace_id.hex(),
        "span": span.span_id.hex(),
        "parent": span.parent_span_id.hex(),
        "name": span.name,
        "kind": span.kind,
        "start": span.start_time_unix_nano,
        "end": span.end_time_unix_nano,
        "error": span.status.code == 2,
        "attributes": {a.key: value_of(a.value) for a in span.attributes},
    }


class Collector(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(200, {"spans": spans, "wrong": wrong, "authorization": fields})

    def do_POST(self):
        text = self.rfile.read(int(self.headers["Content-Length"]))
        fields.append(self.headers.get("Authorization"))
        if refusals:
            return self.answer(refusals.pop(0), {})
        try:
            assert self.path == "/v1/traces", self.path
            assert self.headers["Content-Type"] == "application/json"
            for resource in proto_of(text).resource_spans:
                for scope in resource.scope_spans:
                    spans.extend(told(span, resource.resource) for span in scope.spans)
        except Exception as error:
            wrong.append(repr(error))
            return self.answer(400, {})
        self.answer(200, {"partialSuccess": {}})

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Collector)
if len(sys.argv) > 5:
    # A certificate and its key: over TLS.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[4], sys.argv[5])
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
server.serve_forever()
