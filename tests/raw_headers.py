"""Records as only a hostile producer sends them: header names that are no text. Through librdkafka itself."""

import ctypes
from pathlib import Path

import confluent_kafka

_TOPIC, _PARTITION, _VALUE, _KEY, _HEADERS = 1, 3, 4, 5, 10  # rd_kafka_vtype_t


class _Bytes(ctypes.Structure):
    _fields_ = (("ptr", ctypes.c_char_p), ("size", ctypes.c_size_t))


class _Any(ctypes.Union):
    _fields_ = (
        ("text", ctypes.c_char_p), ("number", ctypes.c_int32), ("bytes", _Bytes), ("headers", ctypes.c_void_p),
        ("room", ctypes.c_char * 64),
    )  # fmt: skip


class _Field(ctypes.Structure):
    _fields_ = (("kind", ctypes.c_int), ("value", _Any))


def send_raw(kafka, topic, value, headers, *, key=b"k", partition=0):
    """One record whose headers are (bytes, bytes)."""
    library = ctypes.CDLL(str(next(_libraries().glob("librdkafka*"))))
    for name in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_headers_new", "rd_kafka_produceva"):
        getattr(library, name).restype = ctypes.c_void_p
    said = ctypes.create_string_buffer(512)
    properties = ctypes.c_void_p(library.rd_kafka_conf_new())
    library.rd_kafka_conf_set(properties, b"bootstrap.servers", kafka.encode(), said, ctypes.c_size_t(512))
    client = ctypes.c_void_p(library.rd_kafka_new(0, properties, said, ctypes.c_size_t(512)))
    assert client, said.value
    made = ctypes.c_void_p(library.rd_kafka_headers_new(ctypes.c_size_t(len(headers))))
    for name, text in headers:
        library.rd_kafka_header_add(
            made, name, ctypes.c_ssize_t(len(name)), text, ctypes.c_ssize_t(len(text))
        )  # fmt: skip
    fields = (_Field * 5)()
    fields[0].kind, fields[0].value.text = _TOPIC, topic.encode()
    fields[1].kind, fields[1].value.number = _PARTITION, partition
    fields[2].kind, fields[2].value.bytes = _VALUE, _Bytes(value, len(value))
    fields[3].kind, fields[3].value.bytes = _KEY, _Bytes(key, len(key))
    fields[4].kind, fields[4].value.headers = _HEADERS, made
    assert library.rd_kafka_produceva(client, fields, ctypes.c_size_t(len(fields))) is None
    assert library.rd_kafka_flush(client, 30_000) == 0
    library.rd_kafka_destroy(client)


def _libraries():
    return Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs"
