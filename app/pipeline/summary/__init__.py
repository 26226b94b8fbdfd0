"""Predictions of one version, added up: counts, sums and histograms that add up further wherever they meet.

What comes of it is a record of schemas/model_summary.avsc. plan.py says where each figure stands, bins.py what is
counted together, looked_at.py what is known of rows beside their predictions.
"""
