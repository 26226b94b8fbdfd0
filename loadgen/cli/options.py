"""Options that several commands share, and the plans they become."""

from pathlib import Path
from typing import Annotated

import typer

from loadgen.errors import BadOption
from loadgen.event_sources import PIPELINES
from loadgen.kafka_client import KafkaOptions
from loadgen.pacing import PROFILES, Pace, Profile
from loadgen.producing import Extent
from loadgen.schema_source import SchemaOptions
from loadgen.skew import Skew

DEFAULT_EVENTS = 10_000

BootstrapOption = Annotated[
    str,
    typer.Option("--bootstrap", envvar="KAFKA_BOOTSTRAP_SERVERS", metavar="HOST:PORT,…", help="Kafka brokers."),
]
ClientOption = Annotated[
    list[str] | None,
    typer.Option("--client", metavar="KEY=VALUE", help="A Kafka client property, e.g. security.protocol=SSL. Repeat."),
]
RegistryOption = Annotated[
    str | None,
    typer.Option(
        "--registry-url",
        envvar="SCHEMA_REGISTRY_URL",
        metavar="URL",
        help="Schema registry: Confluent framing. Without it: single-object encoding.",
    ),
]
SchemasOption = Annotated[
    Path, typer.Option("--schemas", metavar="DIR", help="Schema files; older versions in its history/.")
]
PipelineOption = Annotated[str, typer.Option("--pipeline", help=f"The events: {' or '.join(PIPELINES)}.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Equal seeds make equal events.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]

EventsOption = Annotated[
    int | None,
    typer.Option("--events", help=f"How many events; {DEFAULT_EVENTS} if --duration is not given either."),
]
DurationOption = Annotated[float | None, typer.Option("--duration", metavar="SECONDS", help="How long to send.")]
RateOption = Annotated[float, typer.Option("--rate", help="Events per second; 0 is as fast as it goes.")]
ProfileOption = Annotated[str, typer.Option("--profile", help=f"How the rate goes: {', '.join(PROFILES)}.")]
PeakOption = Annotated[float, typer.Option("--peak", help="The highest rate of a ramp, spike or sine.")]
PeriodOption = Annotated[float, typer.Option("--period", metavar="SECONDS", help="Of a ramp, spike or sine.")]
SpikeOption = Annotated[float, typer.Option("--spike", metavar="SECONDS", help="How long each spike lasts.")]
KeysOption = Annotated[int, typer.Option("--keys", help="How many different keys; 0 is a new key per event.")]
SkewOption = Annotated[
    float,
    typer.Option("--key-skew", help="Zipf exponent of the keys' popularity; 0 is uniform. Needs --keys."),
]
PoisonOption = Annotated[float, typer.Option("--poison", help="Share of broken records, spread over all kinds.")]
WritersOption = Annotated[
    str,
    typer.Option("--writer-versions", help='Schema versions to mix: "current", "all", or e.g. "1,2,current".'),
]
CreateOption = Annotated[bool, typer.Option("--create-topics", help="Make the pipeline's topics that are not there.")]
PartitionsOption = Annotated[int, typer.Option("--partitions", help="Of the topics made by --create-topics.")]

PredictionsOption = Annotated[
    str | None, typer.Option("--predictions", metavar="TOPIC", help="Default: <pipeline>.predictions.")
]
DeadLettersOption = Annotated[
    str | None, typer.Option("--dead-letters", metavar="TOPIC", help="Default: <pipeline>.dead-letters.")
]
AtLeastOnceOption = Annotated[
    bool,
    typer.Option("--at-least-once", help="Allow several outcomes of one event; order counts for the first."),
]
AcceptOption = Annotated[
    list[str] | None,
    typer.Option("--accept-reason", help="A reason for which a healthy event may be dead-lettered. Repeat."),
]
StoreOption = Annotated[
    str | None,
    typer.Option("--store", metavar="DIR", help="The worker's model store: check scores and digests with it."),
]
SampleOption = Annotated[int, typer.Option("--sample", help="How many predictions to score anew; 0 is all.")]
ToleranceOption = Annotated[float, typer.Option("--tolerance", help="Allowed difference of a probability.")]
MinAccuracyOption = Annotated[
    float | None, typer.Option("--min-accuracy", help="Least share of predictions that agree with the truth.")
]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", metavar="SECONDS", help="Bound on reading the topics to their end.")
]
QuietOption = Annotated[
    float,
    typer.Option("--quiet", metavar="SECONDS", help="Nothing new for so long is the end if events miss."),
]


def kafka_options(bootstrap: str, client: list[str] | None) -> KafkaOptions:
    """How to reach Kafka."""
    return KafkaOptions.parse(bootstrap, client or [])


def schema_options(directory: Path, registry_url: str | None) -> SchemaOptions:
    """Where schemas live; an empty URL is none."""
    return SchemaOptions(directory, registry_url or None)


def pace(profile: str, rate: float, peak: float, period: float, spike: float) -> Pace:
    """Return the intended rate. Raises BadOption for a profile that does not exist."""
    known: dict[str, Profile] = {name: name for name in PROFILES}
    if profile not in known:
        raise BadOption(f"--profile: {profile!r} is not one of {', '.join(PROFILES)}")
    return Pace(known[profile], rate, peak, period, spike)


def extent(events: int | None, duration: float | None) -> Extent:
    """How much to send."""
    return Extent(DEFAULT_EVENTS if events is None and duration is None else events, duration)


def skew(keys: int, exponent: float) -> Skew:
    """Which keys."""
    return Skew(keys, exponent)
