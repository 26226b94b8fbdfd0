"""A column of a file as the keys that rollouts choose by: the bytes that a producer of the same rows would send."""

from collections.abc import Callable

import pyarrow as pa

from app.errors import SchemaIncompatible


def key_column(table: pa.RecordBatch, name: str) -> pa.Array:
    """A column as the keys that rollouts go by: the bytes of text, of whole numbers in decimal; null for none.

    Raises SchemaIncompatible if there is no such column, or it holds anything else.
    """
    index = table.schema.get_field_index(name)
    if index < 0:
        raise SchemaIncompatible(f"there is no column {name!r} for keys, there are {', '.join(table.schema.names)}")
    column = table.column(index)
    check_key_type(name, column.type)
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    if pa.types.is_integer(column.type):
        column = column.cast(pa.string())
    return column.cast(pa.binary())


def check_key_type(name: str, given: pa.DataType) -> None:
    """Raises SchemaIncompatible if a column of this type cannot hold keys."""
    plain = given.value_type if pa.types.is_dictionary(given) else given
    kinds: tuple[Callable[[pa.DataType], bool], ...] = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_string_view,
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_integer,
        pa.types.is_null,
    )
    if not any(kind(plain) for kind in kinds):
        raise SchemaIncompatible(f"the column {name!r} is {given}; keys are text, bytes or whole numbers")
