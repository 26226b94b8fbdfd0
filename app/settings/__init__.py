"""Files and environment → frozen Settings: the only place that reads either.

    reading.py      a YAML file and the environment, and what is wrong with them in words
    root.py         every section, and what they have to agree on
    connections.py  pipelines.py  models.py   the larger sections

Sections of one surface are beside their users: serving/settings.py, monitor/monitor_settings.py, audit/policy.py,
lag/lag_settings.py. What all have in common is app/sections.py.
"""
