"""Converts parameters and figures to Flower records and back.

All parameters of a message are sent as one packed safetensors array, because Flower's cost grows with the number of
arrays, not only with the bytes. Nothing is pickled. Structured figures are sent as JSON text in a ConfigRecord.
"""

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from common.blocks import Params, all_finite, is_variance
from common.errors import WireError

PARAMS = "params"
BODY = "body"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
BODY_BYTES = 2**24
"""The maximum length of a JSON text."""
HEADER_BYTES, ENTRY_BYTES = 1024, 256
"""The allowed bytes of a packed array in addition to values and names: in total, and per parameter."""


def pack(params: Params, dtype: str = "float32") -> ArrayRecord:
    """One uint8 array that contains every parameter in the given type."""
    data = save({name: value.to(DTYPES[dtype]).contiguous() for name, value in params.items()})
    return ArrayRecord({PARAMS: Array(np.frombuffer(data, dtype=np.uint8))})


def unpack(record: ArrayRecord) -> Params:
    """The parameters of a packed array, as float32.

    Raises WireError when `pack` did not make the record.
    """
    return {name: value.to(torch.float32) for name, value in _load(_only_array(record)).items()}


def _only_array(record: ArrayRecord) -> Array:
    if list(record) != [PARAMS]:
        raise WireError(f"expected one array named {PARAMS!r}, got {list(record)[:5]}")
    return record[PARAMS]


def _load(array: Array) -> Params:
    """The tensors of a packed array, in the type in which they were sent.

    The header must be exactly NumPy's header for an array of that many bytes. NumPy's own reader is not used, because
    it also accepts archives and allocates as much memory as a header claims.
    """
    start = len(_header(0))
    if not array.data.startswith(_header(max(len(array.data) - start, 0))):
        raise WireError(f"packed parameters must be an array of bytes, not {array.dtype} of shape {array.shape}")
    try:
        params = load(array.data[start:])
    except SafetensorError as error:
        raise WireError(f"the parameters cannot be unpacked: {error}") from None
    except (AssertionError, KeyError, MemoryError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        # torch raises these for types and shapes that safetensors supports, but torch does not
        raise WireError(f"the parameters cannot be unpacked: {error!r}") from None
    if other := {value.dtype for value in params.values()} - {*DTYPES.values()}:
        raise WireError(f"packed parameters must be {' or '.join(DTYPES)}, not {', '.join(sorted(map(str, other)))}")
    return params


def _header(count: int) -> bytes:
    """The header of NumPy's file format for an array of `count` bytes."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (count,)})
    return header.getvalue()


def size(record: RecordDict) -> int:
    """The number of bytes of a message's packed parameters and JSON bodies."""
    arrays = sum(len(array.data) for part in record.array_records.values() for array in part.values())
    bodies = sum(len(str(value)) for part in record.config_records.values() for value in part.values())
    return arrays + bodies


def body(content: Mapping[str, Any]) -> ConfigRecord:
    """A record that contains JSON values."""
    return ConfigRecord({"json": json.dumps(content, allow_nan=False)})


def read_body(message: Message) -> dict[str, Any]:
    """The JSON values of a message.

    Raises WireError when the message has no readable JSON mapping.
    """
    records = message.content.config_records
    text = records[BODY].get("json") if BODY in records else None
    if not isinstance(text, str) or len(text) > BODY_BYTES:
        raise WireError(f"the message has no body: it must be JSON text of at most {BODY_BYTES:,} characters")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WireError(f"the message has no readable body: {error!r}") from None
    if not isinstance(content, dict):
        raise WireError("the body of the message is not a mapping")
    return content


def read_params(message: Message, expected: Mapping[str, Tensor], dtype: str) -> Params:
    """The parameters of a message, as float32. They must have the names and shapes of `expected`, be finite, and be
    sent in the given type.

    An array that is longer than these parameters need is not unpacked. Raises WireError with the reason to refuse the
    message.
    """
    records = message.content.array_records
    if PARAMS not in records:
        raise WireError("the message has no parameters")
    array = _only_array(records[PARAMS])
    _check_size(len(array.data), expected, dtype)
    params = _load(array)
    _check_names(params, expected)
    for name, value in params.items():
        if value.shape != expected[name].shape:
            raise WireError(f"{name} has shape {list(value.shape)}, expected {list(expected[name].shape)}")
        if value.dtype != DTYPES[dtype]:
            raise WireError(f"{name} is {str(value.dtype).removeprefix('torch.')}, the experiment's wire is {dtype}")
    if not all_finite(params.values()):
        name = next(name for name, value in params.items() if not value.isfinite().all())
        raise WireError(f"{name} has values that are not finite")
    return {name: value.to(torch.float32) for name, value in params.items()}


def check_variances(params: Mapping[str, Tensor]) -> None:
    """Raises WireError when a running variance is negative."""
    for name, value in params.items():
        if is_variance(name) and bool((value < 0).any()):
            raise WireError(f"{name} is a running variance, but has negative values")


def _check_size(given: int, expected: Mapping[str, Tensor], dtype: str) -> None:
    values = sum(value.numel() for value in expected.values()) * DTYPES[dtype].itemsize
    room = HEADER_BYTES + sum(len(name.encode()) + ENTRY_BYTES for name in expected)
    if given > values + room:
        raise WireError(
            f"the packed parameters have {given:,} bytes; the expected blocks need {values:,} and at most {room:,} more"
        )


def _check_names(given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    if given.keys() != expected.keys():
        lacking = sorted(expected.keys() - given.keys())[:3]
        surplus = sorted(name[:80] for name in given.keys() - expected.keys())[:3]
        raise WireError(f"the message has other parameters than expected: missing {lacking}, unexpected {surplus}")


def record(content: Mapping[str, Any], params: ArrayRecord | None = None) -> RecordDict:
    """The content of a message: JSON values and, for training, packed parameters."""
    parts: dict[str, Any] = {BODY: body(content)}
    if params is not None:
        parts[PARAMS] = params
    return RecordDict(parts)
