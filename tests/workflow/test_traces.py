"""One trace leads from a request through its workflow to each step."""

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import httpx2
import pytest
import pytest_asyncio
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from api.app import create_app
from api.auth import TokenAuth
from engine.backend import Backend
from engine.delivery import Delivery
from engine.registry import all_actions, all_queries
from simulator.no_secrets import NoSecrets
from tests.workflow.bench import Bench, bench, quick
from worker.temporal_client import TemporalWorkflows
from worker.tracing import tracing_interceptor

pytestmark = pytest.mark.workflow


@pytest.fixture(scope="module")
def exporter() -> InMemorySpanExporter:
    """Where spans end; a process has one provider, so it is set once."""
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    trace.set_tracer_provider(provider)
    return kept


@pytest_asyncio.fixture
async def traced(
    exporter: InMemorySpanExporter, temporal_address: str, migrated: Path, tmp_path: Path
) -> AsyncIterator[Bench]:
    """A bench whose API, starter and workers trace."""
    with quick():
        async with bench(temporal_address, migrated, tmp_path) as made:
            client = await Client.connect(
                temporal_address,
                namespace=made.client.namespace,
                data_converter=pydantic_data_converter,
                interceptors=tracing_interceptor("otlp"),
            )
            delivery = Delivery(made.database, TemporalWorkflows(client))
            secrets = NoSecrets()
            actions = all_actions(secrets, secrets)
            made.backend = Backend(made.database, actions, all_queries(), delivery)
            await made.build("h1")
            async with made.workers(tracing_interceptor("otlp")):
                yield made


async def test_a_request_its_workflow_and_its_steps_share_one_trace(
    traced: Bench, exporter: InMemorySpanExporter
) -> None:
    vm_id = await traced.add_vm("db")
    exporter.clear()
    transport = httpx2.ASGITransport(create_app(traced.backend, TokenAuth("t")))
    headers = {"Authorization": "Bearer t"}
    async with httpx2.AsyncClient(
        transport=transport, base_url="http://engine", headers=headers
    ) as client:
        answer = await client.post(f"/api/v1/vms/{vm_id}/actions/start")
    await traced.backend.close()
    await traced.ended(UUID(answer.json()["id"]))

    async def told() -> bool:
        return "RunActivity:guest.start" in _named(exporter.get_finished_spans(), trace_id)

    (request,) = [s for s in exporter.get_finished_spans() if s.name.startswith("POST")]
    assert request.context is not None
    trace_id = request.context.trace_id
    await traced.until(told, "the start of the guest never joined the request's trace")
    names = _named(exporter.get_finished_spans(), trace_id)
    for name in ("StartWorkflow:StartVm", "RunWorkflow:StartVm", "RunActivity:guest.start"):
        assert names.count(name) == 1, (name, names)


def _named(spans: tuple[ReadableSpan, ...], trace_id: int) -> list[str]:
    return [span.name for span in spans if span.context and span.context.trace_id == trace_id]
