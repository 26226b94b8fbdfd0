"""The loop of the first afternoon: poll one record, predict one row, produce one record."""

from loadgen.bench.peers.clients import Output, consumer
from loadgen.bench.peers.job import Job, PeerSettings


def main() -> None:
    """Run until killed."""
    settings = PeerSettings.from_environment()
    job, source = Job(settings), consumer(settings)
    output = Output(settings, source)
    while True:
        message = source.poll(settings.wait_s)
        if message is not None:
            error = message.error()
            if error is not None:
                raise RuntimeError(error.str())
            ((key, value),) = job.answer([message.value() or b""])
            output.send(key, value)
        output.commit_if_due()


if __name__ == "__main__":
    main()
