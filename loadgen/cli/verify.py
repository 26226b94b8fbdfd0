"""`loadgen verify`."""

from pathlib import Path
from typing import Annotated

import typer

from loadgen.cli import options as o
from loadgen.cli.output import Bars, named_errors, now, show
from loadgen.verdict import result_page
from loadgen.verify_plan import VerifyPlan
from loadgen.verifying import verify as verify_topics


def verify(
    *,
    bootstrap: o.BootstrapOption,
    pipeline: o.PipelineOption = "churn",
    inputs: Annotated[
        list[str] | None, typer.Option("--input", metavar="TOPIC", help="Default: <pipeline>.events. Repeat.")
    ] = None,
    predictions: o.PredictionsOption = None,
    dead_letters: o.DeadLettersOption = None,
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
    as_json: o.JsonOption = False,
) -> None:
    """Check that every event in the topics has exactly the outcome it should have. Exit 1 if not.

    Example: loadgen verify --bootstrap 127.0.0.1:9092 --pipeline churn --store var/models --min-accuracy 0.8
    """
    with named_errors(), Bars() as bars:
        plan = VerifyPlan(
            pipeline=pipeline,
            input_topics=tuple(inputs or [f"{pipeline}.events"]),
            prediction_topic=predictions or f"{pipeline}.predictions",
            dead_letter_topic=dead_letters or f"{pipeline}.dead-letters",
            kafka=o.kafka_options(bootstrap, client),
            schemas=o.schema_options(schemas, registry_url),
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
        started_at = now()

        def progress(read: int, predicted: int, dead: int) -> None:
            bars.show("events", read)
            bars.show("predictions", predicted, read or None)
            bars.show("dead letters", dead)

        verdict = verify_topics(plan, progress)
    show(result_page(command="verify", started_at=started_at, produced=None, verdict=verdict), as_json=as_json)
