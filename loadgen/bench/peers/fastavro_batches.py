"""The careful loop: consume up to 500 records, run the model once for all of them, produce them in one call.

`consume(n, timeout)` holds a partial batch for the whole timeout, which is what its users live with.
"""

from loadgen.bench.peers.clients import Output, consumer, taken
from loadgen.bench.peers.job import Job, PeerSettings


def main() -> None:
    """Run until killed."""
    settings = PeerSettings.from_environment()
    job, source = Job(settings), consumer(settings)
    output = Output(settings, source)
    while True:
        messages = taken(source.consume(settings.batch, settings.wait_s))
        if messages:
            output.send_all([*job.answer([message.value() or b"" for message in messages])])
        output.commit_if_due()


if __name__ == "__main__":
    main()
