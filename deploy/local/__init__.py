"""A real Kafka, and on request a schema registry and a Redis, on this machine: no Docker, no system Java, no root.

The library comes first: `kafka.Cluster` and `schema_registry.SchemaRegistry` for tests, `stack.Stack` for a
whole stack that outlives its starter. `python -m deploy.local` is the command over `Stack`.

    errors.py           what can go wrong, in one tree
    ports.py            which free ports are safe to give to a server
    file_lock.py        one process at a time, bounded in time
    json_record.py      small facts on disk, never half-written
    artifacts.py        what is fetched or built, once per machine, whole or not at all
    go_modules.py       Go commands built, files of Go modules fetched
    process.py          a server process that outlives us, and is never mistaken for another one
    local_server.py     the life of a server in a directory, whichever it is
    broker_config.py    the broker's properties: small, quick to fail over, close to production in all else
    kafka.py            one broker, or a cluster of them
    toxiproxy.py        proxies in front of brokers that break connections on order
    object_store.py     an S3 server over a folder
    schema_registry.py  Apicurio with the Confluent-compatible API
    redis_server.py     a Redis that keeps nothing on disk
    nginx_server.py     an nginx that runs a configuration of ours
    prometheus_server.py        a Prometheus that runs a configuration of ours
    prometheus_questions.py     what a Prometheus answers, as plain data
    stack.py            up, down, status; what lives in a stack directory
    guardian.py         takes a stack down when the process it serves is gone
"""
