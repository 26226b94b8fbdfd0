"""What users would write or pick instead of the worker: one small script each, run as a process of its own.

All do the same job on the same records: read the event's bytes, decode Avro, make the model's inputs, run ONNX
Runtime with one thread, write an Avro prediction under the event's key, produce it, commit. None of them validates,
dead-letters or says which event a prediction answers: users start without, so their loops are timed without.

    job.py              the job itself, written the way users write it: fastavro and NumPy
    clients.py          the client properties and the produce-and-commit habit the plain loops share
    naive_poll.py       poll one, predict one, produce one
    fastavro_batches.py the careful loop: batches of 500
    faust_take.py       faust-streaming, `stream.take(256, within)`
    quix_sink.py        quixstreams, a batching sink
    forward.py     no job at all: the same bytes on, the limit of the client
    onnx_alone.py       no Kafka at all: the limit of the model
"""
