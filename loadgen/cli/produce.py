"""`loadgen produce`."""

from pathlib import Path
from typing import Annotated

import typer

from loadgen.cli import options as o
from loadgen.cli.output import Bars, named_errors, now, show
from loadgen.kafka_client import Topics
from loadgen.poison import PoisonShare
from loadgen.produce_plan import ProducePlan
from loadgen.schemas import CURRENT
from loadgen.verdict import result_page


def produce(
    *,
    bootstrap: o.BootstrapOption,
    pipeline: o.PipelineOption = "churn",
    topic: Annotated[str | None, typer.Option("--topic", help="Default: <pipeline>.events.")] = None,
    events: o.EventsOption = None,
    duration: o.DurationOption = None,
    rate: o.RateOption = 0.0,
    profile: o.ProfileOption = "constant",
    peak: o.PeakOption = 0.0,
    period: o.PeriodOption = 60.0,
    spike: o.SpikeOption = 5.0,
    keys: o.KeysOption = 0,
    key_skew: o.SkewOption = 0.0,
    poison: o.PoisonOption = 0.0,
    writer_versions: o.WritersOption = CURRENT,
    seed: o.SeedOption = 7,
    schemas: o.SchemasOption = Path("schemas"),
    registry_url: o.RegistryOption = None,
    client: o.ClientOption = None,
    create_topics: o.CreateOption = False,
    partitions: o.PartitionsOption = 4,
    as_json: o.JsonOption = False,
) -> None:
    """Send events at their intended times (open loop), or as fast as it goes.

    Example: loadgen produce --bootstrap 127.0.0.1:9092 --events 60000 --rate 1000 --poison 0.01
    --create-topics
    """
    with named_errors(), Bars() as bars:
        plan = ProducePlan(
            pipeline=pipeline,
            topic=topic or f"{pipeline}.events",
            kafka=o.kafka_options(bootstrap, client),
            schemas=o.schema_options(schemas, registry_url),
            pace=o.pace(profile, rate, peak, period, spike),
            extent=o.extent(events, duration),
            seed=seed,
            skew=o.skew(keys, key_skew),
            poison=PoisonShare(poison),
            writer_versions=writer_versions,
        )
        total = plan.expected_events()
        started_at = now()
        if create_topics:
            # a pipeline's own topics come together, so that a worker can start on them
            outputs = [] if topic else [f"{pipeline}.predictions", f"{pipeline}.dead-letters"]
            Topics(plan.kafka).create([plan.topic, *outputs], partitions)
        produced = plan.run(lambda sent: bars.show("sent", sent, total))
    show(
        result_page(command="produce", started_at=started_at, produced=produced, verdict=None),
        as_json=as_json,
    )
