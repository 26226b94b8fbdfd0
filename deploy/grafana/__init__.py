"""The Grafana dashboards, written from code: `python -m deploy.grafana`.

One module for each dashboard, in `panels.py` what they are made of, in `board.py` what all of them have around.
"""
