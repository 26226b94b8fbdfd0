"""faust-streaming: an agent that takes up to 256 records at a time and predicts them together.

Committed as often as the other peers commit (`broker_commit_interval`), not every 2.8 s. Its own client
(aiokafka) has no such property as fetch.queue.backoff.ms.
"""

import asyncio
import tempfile

import faust

from loadgen.bench.peers.job import Job, PeerSettings


def main() -> None:
    """Run until killed."""
    settings = PeerSettings.from_environment()
    job = Job(settings)
    app = faust.App(
        settings.group,
        broker=f"kafka://{settings.bootstrap}",
        value_serializer="raw",
        key_serializer="raw",
        broker_commit_interval=settings.commit_s,
        producer_linger=settings.linger_ms / 1000.0,
        topic_disable_leader=True,
        web_enabled=False,
        datadir=f"{tempfile.gettempdir()}/loadgen-bench-faust",
    )
    events = app.topic(settings.input)
    predictions = app.topic(settings.output)

    @app.agent(events)
    async def predict(stream):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202 - as faust's users write it
        async for values in stream.take(settings.batch, within=settings.wait_s):
            sent = [await predictions.send(key=key, value=value) for key, value in job.answer(values)]
            await asyncio.gather(*sent)  # acknowledged, so that the events may count as done

    faust.Worker(app, loglevel="WARNING").execute_from_commandline()


if __name__ == "__main__":
    main()
