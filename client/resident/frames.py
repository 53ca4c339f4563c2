"""The frames that the ClientApp process and the site's resident worker exchange over a local socket.

A frame consists of the length of a JSON header, the header, and raw bytes. The header contains the sizes of the raw
parts. Nothing is pickled.
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
    """The values of a header and the raw bytes that follow it."""

    header: dict[str, Any]
    parts: list[bytes]


def send(connection: socket.socket, header: Mapping[str, Any], parts: Sequence[bytes] = ()) -> None:
    """Send a frame.

    Raises OSError when the connection is closed.
    """
    text = json.dumps({**header, "sizes": [len(part) for part in parts]}).encode()
    connection.sendall(LENGTH.pack(len(text)) + text)
    for part in parts:
        connection.sendall(part)


def receive(connection: socket.socket) -> Frame:
    """The next frame.

    Raises EOFError or OSError when the connection is closed before the frame is complete.
    """
    (length,) = LENGTH.unpack(_exactly(connection, LENGTH.size))
    header = json.loads(_exactly(connection, length))
    return Frame(header, [_exactly(connection, size) for size in header.pop("sizes")])


def _exactly(connection: socket.socket, count: int) -> bytes:
    buffer = bytearray(count)
    rest = memoryview(buffer)
    while rest:
        got = connection.recv_into(rest)
        if not got:
            raise EOFError("the connection is closed")
        rest = rest[got:]
    return bytes(buffer)


def send_content(connection: socket.socket, header: Mapping[str, Any], content: RecordDict) -> None:
    """Send a frame with the texts and arrays of a message. A site uses no other content.

    Raises OSError when the connection is closed.
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
    """The content that `send_content` sent."""
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
