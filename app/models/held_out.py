"""Rows from a file that a model is judged by: Parquet or CSV of event columns, or model inputs from NumPy.

Event columns go through the worker's own feature code, so that a judged model sees what a serving one sees.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from app.errors import BadSettings
from app.specs import InputSpec

Array = npt.NDArray[Any]
# From event columns to model inputs; raises BadSettings, saying which row, if one is refused.
FeaturesOf = Callable[[pa.RecordBatch, tuple[InputSpec, ...]], Mapping[str, Array]]

SUFFIXES = (".parquet", ".csv", ".npy", ".npz")
MAX_ROWS = 1_000_000  # all of them are held in memory, several times


@dataclass(frozen=True, slots=True)
class HeldOut:
    """n rows that training did not see. tensors: by input name, as the model takes them. labels: (n,) or None."""

    tensors: Mapping[str, Array]
    labels: Array | None = None

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))


def read_rows(path: Path, inputs: tuple[InputSpec, ...], label: str | None, features_of: FeaturesOf) -> HeldOut:
    """Read the rows of a file.

    Parquet, CSV: a column for each field of the features. .npy: the numbers of the only input, a row each.
    .npz: one such array per input, by its name. label: the column, or array of an .npz, with the labels.
    Raises BadSettings, naming the file and what is wrong with it.
    """
    try:
        rows = _read(path, inputs, label, features_of)
    except (OSError, ValueError, KeyError, MemoryError, EOFError, BadZipFile, pa.ArrowException) as exc:
        raise BadSettings(f"{path}: {' '.join(str(exc).split())[:300]}") from exc
    except BadSettings as exc:
        raise BadSettings(f"{path}: {exc}") from exc
    return rows


def _read(path: Path, inputs: tuple[InputSpec, ...], label: str | None, features_of: FeaturesOf) -> HeldOut:
    if path.suffix == ".parquet":
        return _from_table(pyarrow.parquet.read_table(path), inputs, label, features_of)
    if path.suffix == ".csv":
        return _from_table(pyarrow.csv.read_csv(path), inputs, label, features_of)
    if path.suffix == ".npz":
        with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as arrays:
            found = {spec.name: arrays[spec.name] for spec in inputs}
            return _from_arrays(found, inputs, arrays[label] if label else None)
    if path.suffix == ".npy":
        if label is not None:
            raise BadSettings("an .npy file has no labels: use .npz, .parquet or .csv")
        if len(inputs) != 1:
            raise BadSettings(f"the model has {len(inputs)} inputs: use .npz, with one array for each")
        with path.open("rb") as file:
            return _from_arrays({inputs[0].name: np.lib.format.read_array(file, allow_pickle=False)}, inputs, None)
    raise BadSettings(f"rows come as {', '.join(SUFFIXES)}")


def _from_table(table: pa.Table, inputs: tuple[InputSpec, ...], label: str | None, features_of: FeaturesOf) -> HeldOut:
    _check_count(table.num_rows)
    names = list(dict.fromkeys(feature.field for spec in inputs for feature in spec.features))
    absent = [name for name in [*names, *([label] if label else [])] if table.schema.get_field_index(name) < 0]
    if absent:
        raise BadSettings(f"no column {', '.join(absent)}; there are {', '.join(table.column_names)}")
    batch = pa.RecordBatch.from_pydict({name: table.column(name).combine_chunks() for name in names})
    tensors = features_of(batch, inputs)
    if label is None:
        return HeldOut(tensors)
    column = table.column(label)
    if column.null_count:
        raise BadSettings(f"{column.null_count} rows have no {label}")
    return HeldOut(tensors, np.array(column.to_pylist()))


def _from_arrays(arrays: Mapping[str, Array], inputs: tuple[InputSpec, ...], labels: Array | None) -> HeldOut:
    count = len(np.atleast_1d(arrays[inputs[0].name]))
    _check_count(count)
    tensors = {}
    for spec in inputs:
        array, row = arrays[spec.name], spec.shape or (spec.width,)
        if array.dtype.kind not in "biuf":
            raise BadSettings(f"{spec.name!r} holds {array.dtype}, the model takes {spec.dtype}")
        if array.shape not in {(count, spec.width), (count, *row)}:
            raise BadSettings(f"{spec.name!r} has the shape {list(array.shape)}, the model takes {[count, *row]}")
        with np.errstate(over="ignore", invalid="ignore"):  # what does not fit is refused right below
            tensor = np.ascontiguousarray(array.reshape(count, *row).astype(spec.dtype))
        if not np.isfinite(tensor).all() or (tensor.dtype.kind == "i" and (tensor != array.reshape(count, *row)).any()):
            raise BadSettings(f"{spec.name!r} holds numbers that {spec.dtype} cannot")
        tensors[spec.name] = tensor
    if labels is not None and labels.shape != (count,):
        raise BadSettings(f"the labels have the shape {list(labels.shape)}, there are {count} rows")
    return HeldOut(tensors, labels)


def _check_count(count: int) -> None:
    if not 1 <= count <= MAX_ROWS:
        raise BadSettings(f"{count} rows, allowed 1 to {MAX_ROWS:,}")
