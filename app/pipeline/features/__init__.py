"""Columns → model inputs, or rejected rows.

plan.py compiles the mapping and knows the order in which features are looked at; numbers.py, categories.py and
tensors.py are the kinds of feature, each a step that fills its columns of the tensor and says which rows it refuses.
One rule for all: the first failing feature in manifest order names a row's reason.
"""
