"""A stand-in for Cloud Run's Admin API (v2, gRPC), which runs nothing: it notes what is asked and answers as told."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
from google.cloud.run_v2.types import CancelExecutionRequest, Execution, GetExecutionRequest, RunJobRequest
from google.longrunning.operations_pb2 import Operation


@dataclass
class CloudRunApi:
    """What was asked for, and what is answered."""

    port: int = 0
    runs: list[RunJobRequest] = field(default_factory=list)
    """All requests to run a job, those that were refused too."""
    canceled: list[str] = field(default_factory=list)
    refusals: int = 0
    """How many of the next requests to run a job exceed the quota."""
    execution: Execution = field(default_factory=lambda: Execution(reconciling=True))
    """The state of every execution."""

    def run_job(self, request: RunJobRequest, context: grpc.ServicerContext) -> Operation:
        self.runs.append(request)
        if self.refusals:
            self.refusals -= 1
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Quota exceeded for quota metric 'Run job requests'")
        return _operation(f"{request.name}/executions/taxi-run-{len(self.runs)}")

    def get_execution(self, _: GetExecutionRequest, __: grpc.ServicerContext) -> Execution:
        return self.execution

    def cancel_execution(self, request: CancelExecutionRequest, _: grpc.ServicerContext) -> Operation:
        self.canceled.append(request.name)
        return _operation(request.name)


def _operation(execution: str) -> Operation:
    operation = Operation(name="projects/p/locations/r/operations/1")
    operation.metadata.Pack(Execution.pb(Execution(name=execution)))
    return operation


@contextmanager
def cloud_run_api() -> Iterator[CloudRunApi]:
    """The stand-in on loopback, without TLS."""
    api = CloudRunApi()
    server = grpc.server(futures.ThreadPoolExecutor(2))
    started = {"request_deserializer": RunJobRequest.deserialize, "response_serializer": Operation.SerializeToString}
    ended = {**started, "request_deserializer": CancelExecutionRequest.deserialize}
    seen = {"request_deserializer": GetExecutionRequest.deserialize, "response_serializer": Execution.serialize}
    method = grpc.unary_unary_rpc_method_handler
    jobs = {"RunJob": method(api.run_job, **started)}
    executions = {
        "GetExecution": method(api.get_execution, **seen),
        "CancelExecution": method(api.cancel_execution, **ended),
    }
    services = {"google.cloud.run.v2.Jobs": jobs, "google.cloud.run.v2.Executions": executions}
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(name, methods) for name, methods in services.items()]
    )
    api.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield api
    finally:
        server.stop(None).wait()
