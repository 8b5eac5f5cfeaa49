"""Receives OTLP by the official packages opentelemetry-proto and grpcio, over gRPC and HTTP, on ports of its own choice.

Prints its ports as one line of JSON, and when standard input ends, what it received as another: by which way, the names
of the services with the signals of each, how many bytes the official schema does not know, the last value of each counter by correlation id, and
the names of the spans by trace.
"""

import collections
import concurrent.futures
import gzip
import http.server
import json
import sys
import threading

import grpc
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2 as logs, logs_service_pb2_grpc as logs_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces, trace_service_pb2_grpc as traces_grpc

lock = threading.Lock()
via = set()
services = collections.defaultdict(set)
log_traces = set()
unknown_bytes = 0
counters = collections.defaultdict(dict)
spans = collections.defaultdict(list)


def keep(way, request):
    """Adds one export to what was received."""
    global unknown_bytes
    known = type(request)()
    known.CopyFrom(request)
    known.DiscardUnknownFields()
    with lock:
        via.add(way)
        unknown_bytes += request.ByteSize() - known.ByteSize()
        for of_resource in getattr(request, "resource_metrics", []):
            keep_resource(of_resource.resource, "metrics")
            for scope in of_resource.scope_metrics:
                for metric in scope.metrics:
                    keep_metric(metric)
        for of_resource in getattr(request, "resource_spans", []):
            keep_resource(of_resource.resource, "traces")
            for scope in of_resource.scope_spans:
                for span in scope.spans:
                    spans[span.trace_id.hex()].append(span.name)
        for of_resource in getattr(request, "resource_logs", []):
            keep_resource(of_resource.resource, "logs")
            for scope in of_resource.scope_logs:
                log_traces.update(record.trace_id.hex() for record in scope.log_records)


def keep_resource(resource, signal):
    for attribute in resource.attributes:
        if attribute.key == "service.name":
            services[attribute.value.string_value].add(signal)


def keep_metric(metric):
    for point in metric.sum.data_points if metric.HasField("sum") else []:
        ids = [a.value.string_value for a in point.attributes if a.key == "correlation_id"]
        if ids and not point.flags:
            labels = sorted((a.key, a.value.string_value) for a in point.attributes)
            counters[ids[0]].setdefault(metric.name, {})[json.dumps(labels)] = point.as_int


def servicer(base, answer):
    class Servicer(base):
        def Export(self, request, context):
            keep("grpc", request)
            return answer()

    return Servicer()


PATHS = {
    "/v1/metrics": (metrics.ExportMetricsServiceRequest, metrics.ExportMetricsServiceResponse),
    "/v1/traces": (traces.ExportTraceServiceRequest, traces.ExportTraceServiceResponse),
    "/v1/logs": (logs.ExportLogsServiceRequest, logs.ExportLogsServiceResponse),
}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        request, answer = PATHS[self.path]
        keep("http", request.FromString(body))
        payload = answer().SerializeToString()
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_):
        pass


server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
metrics_grpc.add_MetricsServiceServicer_to_server(
    servicer(metrics_grpc.MetricsServiceServicer, metrics.ExportMetricsServiceResponse), server
)
traces_grpc.add_TraceServiceServicer_to_server(
    servicer(traces_grpc.TraceServiceServicer, traces.ExportTraceServiceResponse), server
)
logs_grpc.add_LogsServiceServicer_to_server(
    servicer(logs_grpc.LogsServiceServicer, logs.ExportLogsServiceResponse), server
)
grpc_port = server.add_insecure_port("127.0.0.1:0")
server.start()
web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=web.serve_forever, daemon=True).start()
print(json.dumps({"grpc": grpc_port, "http": web.server_address[1]}), flush=True)
sys.stdin.read()
server.stop(1).wait()
with lock:
    totals = {id: {name: sum(series.values()) for name, series in names.items()} for id, names in counters.items()}
    signals = {name: sorted(of_service) for name, of_service in services.items()}
    received = {"via": sorted(via), "services": signals, "unknown_bytes": unknown_bytes, "log_traces": sorted(log_traces)}
    print(json.dumps({**received, "counters": totals, "spans": spans}), flush=True)
