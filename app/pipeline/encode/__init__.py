"""Checked outputs → framed predictions.

predictions.py finds, at start, what fills each field of the output schema; fills.py are those that can.
"""
