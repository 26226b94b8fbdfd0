"""The composition root: here, and nowhere else, concrete classes are named and joined.

    processes.py       `run`: one process, or several under a supervisor
      worker.py        a worker of all its pipelines
      pipeline_parts.py  lanes.py  summaries.py  result_cache.py   one pipeline of it
      shadow.py        a version beside it, in a process of its own
    config_check.py    `check-config`: the same questions, and all the answers
    serving.py         `serve`; online_model.py one model of it, serving_policies.py what its parts are told
    scoring.py         `score`; score_places.py files and buckets, pipeline_steps.py what a pipeline has beside a model
    monitor.py         `monitor`; monitor_stages.py what it reads, monitor_credentials.py for its library
    audit.py         `audit`; audit_topics.py what it reads, and what becomes of that
    lag.py  top.py   the command of that name
    training.py  conversion.py  rollout_watch.py   `models train`, `export` and `quantize`, `rollout watch`
    stores.py  clients.py  wire_format.py  tracing.py   what several of them need: a model store, the brokers, frames
                                                      and schemas, where traces go

Nothing is imported here: each command loads its own module, and no more.
"""
