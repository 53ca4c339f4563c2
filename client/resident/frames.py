"""What the ClientApp process and the site's resident worker say to each other over a local socket.

A frame is the length of a JSON header, the header, and then raw bytes whose sizes the header gives. Nothing is pickled.
"""

import json
import socket
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

LENGTH = struct.Struct("!I")


@dataclass(frozen=True)
class Frame:
    """A header's values and the raw bytes that came with it."""

    header: dict[str, Any]
    parts: list[bytes]


def send(connection: socket.socket, header: Mapping[str, Any], parts: Sequence[bytes] = ()) -> None:
    """Raises OSError when the other side is gone."""
    text = json.dumps({**header, "sizes": [len(part) for part in parts]}).encode()
    connection.sendall(LENGTH.pack(len(text)) + text)
    for part in parts:
        connection.sendall(part)


def receive(connection: socket.socket) -> Frame:
    """Raises EOFError or OSError when the other side is gone before a whole frame was there."""
    (length,) = LENGTH.unpack(_exactly(connection, LENGTH.size))
    header = json.loads(_exactly(connection, length))
    return Frame(header, [_exactly(connection, size) for size in header.pop("sizes")])


def _exactly(connection: socket.socket, count: int) -> bytes:
    buffer = bytearray(count)
    rest = memoryview(buffer)
    while rest:
        got = connection.recv_into(rest)
        if not got:
            raise EOFError("the other side is gone")
        rest = rest[got:]
    return bytes(buffer)


def send_content(connection: socket.socket, header: Mapping[str, Any], content: RecordDict) -> None:
    """A frame with the texts and arrays of a message, which are all that a site reads or says.

    Raises OSError when the other side is gone.
    """
    texts = {
        record: {key: value.encode() for key, value in values.items() if isinstance(value, str)}
        for record, values in content.config_records.items()
    }
    arrays = content.array_records
    described = {
        "texts": {record: list(values) for record, values in texts.items()},
        "arrays": {
            record: [[name, array.dtype, array.shape, array.stype] for name, array in values.items()]
            for record, values in arrays.items()
        },
    }
    parts = [text for values in texts.values() for text in values.values()]
    parts += [array.data for values in arrays.values() for array in values.values()]
    send(connection, {**header, **described}, parts)


def content_of(frame: Frame) -> RecordDict:
    """The content that `send_content` was given."""
    parts = iter(frame.parts)
    records: dict[str, Any] = {}
    for record, keys in frame.header["texts"].items():
        records[record] = ConfigRecord({key: next(parts).decode() for key in keys})
    for record, arrays in frame.header["arrays"].items():
        values = {
            name: Array(dtype=dtype, shape=tuple(shape), stype=stype, data=next(parts))
            for name, dtype, shape, stype in arrays
        }
        records[record] = ArrayRecord(values)
    return RecordDict(records)
