"""`loadgen bench`: the worker beside what users would write or pick instead, in one sitting on one broker.

    plan.py         what is measured: sections, peers, counts, rates
    contenders.py   how each contender is started, and what it is told
    worker_settings.py  the worker's settings file
    quix_venv.py    the environment quixstreams needs for itself
    peer_process.py a contender's process: its CPU time, its memory, its end
    broker.py       the broker: given, or started for the sitting; topics, offsets
    commands.py     other commands of ours, as processes: produce, verify, train
    drain.py        one drain of a backlog
    latency_run.py  one run at a steady rate
    slow_model.py   what is measured with a model of fixed cost: loads, policies, workers
    objective_run.py  one step of a load sweep: who was on time, in what batches
    scale_run.py    one drain by several members of a group
    worker_metrics.py  what the worker counts of itself
    memory_watch.py  resident memory over time (for `make soak`)
    sitting.py      all runs of the sections, interleaved, written down as they come
    results.py      the JSON file
    ratios.py       medians, paired ratios and their intervals
    page.py         the Markdown block, with slow_page.py and memory_page.py; words.py what they share
    figures.py      its plots
    peers/          the peers

Everything is a process of its own, and the worker is one of them: nothing here knows more of it than its command
line, its settings file and its topics.
"""
