"""Traces from the request through the workflow to each step; off unless asked for."""

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.propagate import extract
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from temporalio.contrib.opentelemetry import TracingInterceptor


def set_up_traces(kind: str, service: str) -> TracerProvider | None:
    """Install a tracer provider for this process, or none when traces are off."""
    if kind == "off":
        return None
    provider = TracerProvider(resource=Resource.create({"service.name": f"holdfast-{service}"}))
    provider.add_span_processor(BatchSpanProcessor(_exporter(kind)))
    trace.set_tracer_provider(provider)
    return provider


def _exporter(kind: str) -> SpanExporter:
    if kind == "console":
        return ConsoleSpanExporter()
    # Imported here because it brings an HTTP stack that a process without traces never needs.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()


def tracing_interceptor(kind: str) -> list[TracingInterceptor]:
    """The SDK's interceptor that carries spans through Temporal's headers."""
    return [] if kind == "off" else [TracingInterceptor(always_create_workflow_spans=True)]


@contextmanager
def continued(traceparent: str | None) -> Iterator[None]:
    """Run as part of the trace that a request began, also in another process and much later."""
    if traceparent is None:
        yield
        return
    token = otel_context.attach(extract({"traceparent": traceparent}))
    try:
        yield
    finally:
        otel_context.detach(token)
