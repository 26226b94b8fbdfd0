"""No decoding, no model, no encoding: keys and values go on as they are, in batches.

What it costs is what the client library costs from Python: nothing that answers events can be cheaper.
"""

from loadgen.bench.peers.clients import Output, consumer, taken
from loadgen.bench.peers.job import PeerSettings


def main() -> None:
    """Run until killed."""
    settings = PeerSettings.from_environment()
    source = consumer(settings)
    output = Output(settings, source)
    while True:
        messages = taken(source.consume(settings.batch, settings.wait_s))
        if messages:
            output.send_all([(message.key(), message.value()) for message in messages])
        output.commit_if_due()


if __name__ == "__main__":
    main()
