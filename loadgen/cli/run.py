"""`loadgen run`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from loadgen import live
from loadgen.cli import options as o
from loadgen.cli.output import Bars, named_errors, now, show
from loadgen.kafka_client import Topics
from loadgen.poison import PoisonShare
from loadgen.produce_plan import ProducePlan
from loadgen.report import html_page
from loadgen.schemas import CURRENT
from loadgen.verdict import result_page
from loadgen.verify_plan import VerifyPlan


def run(
    *,
    bootstrap: o.BootstrapOption,
    pipeline: o.PipelineOption = "churn",
    topic: Annotated[str | None, typer.Option("--topic", help="Default: <pipeline>.events.")] = None,
    predictions: o.PredictionsOption = None,
    dead_letters: o.DeadLettersOption = None,
    events: o.EventsOption = None,
    duration: o.DurationOption = None,
    rate: o.RateOption = 1000.0,
    profile: o.ProfileOption = "constant",
    peak: o.PeakOption = 0.0,
    period: o.PeriodOption = 60.0,
    spike: o.SpikeOption = 5.0,
    warmup: Annotated[
        float, typer.Option("--warmup", metavar="SECONDS", help="Leave their latency out of the percentiles.")
    ] = 0.0,
    keys: o.KeysOption = 0,
    key_skew: o.SkewOption = 0.0,
    poison: o.PoisonOption = 0.0,
    writer_versions: o.WritersOption = CURRENT,
    seed: o.SeedOption = 7,
    at_least_once: o.AtLeastOnceOption = False,
    accept_reason: o.AcceptOption = None,
    store: o.StoreOption = None,
    sample: o.SampleOption = 500,
    tolerance: o.ToleranceOption = 1e-5,
    min_accuracy: o.MinAccuracyOption = None,
    timeout: o.TimeoutOption = 120.0,
    quiet: o.QuietOption = 5.0,
    schemas: o.SchemasOption = Path("schemas"),
    registry_url: o.RegistryOption = None,
    client: o.ClientOption = None,
    create_topics: o.CreateOption = False,
    partitions: o.PartitionsOption = 4,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Write result.json and report.html there.")
    ] = None,
    as_json: o.JsonOption = False,
) -> None:
    """Send events, read their predictions at the same time, and check both. Exit 1 if a check fails.

    Example: loadgen run --bootstrap 127.0.0.1:9092 --rate 1000 --duration 60 --store var/models --out
    var/report
    """
    with named_errors(), Bars() as bars:
        kafka = o.kafka_options(bootstrap, client)
        schema_options = o.schema_options(schemas, registry_url)
        produce_plan = ProducePlan(
            pipeline=pipeline,
            topic=topic or f"{pipeline}.events",
            kafka=kafka,
            schemas=schema_options,
            pace=o.pace(profile, rate, peak, period, spike),
            extent=o.extent(events, duration),
            seed=seed,
            skew=o.skew(keys, key_skew),
            poison=PoisonShare(poison),
            writer_versions=writer_versions,
        )
        verify_plan = VerifyPlan(
            pipeline=pipeline,
            input_topics=(produce_plan.topic,),
            prediction_topic=predictions or f"{pipeline}.predictions",
            dead_letter_topic=dead_letters or f"{pipeline}.dead-letters",
            kafka=kafka,
            schemas=schema_options,
            seed=seed,
            at_least_once=at_least_once,
            accepted_reasons=frozenset(accept_reason or []),
            store=store,
            sample=sample,
            tolerance=tolerance,
            min_accuracy=min_accuracy,
            timeout_s=timeout,
            quiet_s=quiet,
        )
        total = produce_plan.expected_events()
        started_at = now()
        if create_topics:
            Topics(kafka).create(verify_plan.topics, partitions)

        def read(_inputs: int, predicted: int, dead: int) -> None:
            bars.show("predictions", predicted, total)
            bars.show("dead letters", dead)

        result = live.run(produce_plan, verify_plan, lambda sent: bars.show("sent", sent, total), read, warmup_s=warmup)
        page = result_page(command="run", started_at=started_at, produced=result.produced, verdict=result.verdict)
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            (out / "result.json").write_text(json.dumps(page, indent=2) + "\n", encoding="utf-8")
            (out / "report.html").write_text(html_page(page), encoding="utf-8")
    show(page, as_json=as_json)
