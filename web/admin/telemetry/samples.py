"""Admin API: how the farm did in the last hour, or day."""

from dataclasses import asdict

from shared.observability import samples
from web.admin.api import router
from web.admin.telemetry.schemas import SampledInterval, SampleQuery, Samples
from web.services import services


@router.route("GET", "/samples", query=SampleQuery, response=Samples)
def list_samples(query: SampleQuery) -> Samples:
    """List requests, waits, queue depths and account-seconds, every five seconds for an hour or minute for a day."""
    until = float("inf") if query.until is None else query.until
    intervals = samples.Samples(services().redis).read(int(query.step), query.since or 0.0, until)
    return Samples(data=[SampledInterval(**asdict(interval)) for interval in intervals])
