"""Parameters and figures <-> Flower records.

All parameters of a message travel as one packed safetensors array: Flower's cost grows with the number of arrays, not
only with the bytes. Nothing is pickled. Figures with structure travel as JSON text in a ConfigRecord.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from safetensors import SafetensorError
from safetensors.torch import load, save

from common.blocks import Params
from common.errors import WireError

PARAMS = "params"
BODY = "body"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def pack(params: Params, dtype: str = "float32") -> ArrayRecord:
    """One uint8 array that holds every parameter in the given type."""
    data = save({name: value.to(DTYPES[dtype]).contiguous() for name, value in params.items()})
    return ArrayRecord({PARAMS: Array(np.frombuffer(data, dtype=np.uint8))})


def unpack(record: ArrayRecord) -> Params:
    """The parameters of a packed array, as float32.

    Raises WireError when the record is not what `pack` makes.
    """
    if list(record) != [PARAMS]:
        raise WireError(f"expected one array named {PARAMS!r}, got {list(record)[:5]}")
    try:
        packed = record[PARAMS].numpy()
        if packed.dtype != np.uint8 or packed.ndim != 1:
            raise WireError(f"packed parameters must be bytes, not {packed.dtype} of shape {packed.shape}")
        return {name: value.to(torch.float32) for name, value in load(packed.tobytes()).items()}
    except (SafetensorError, ValueError, KeyError, TypeError, EOFError) as error:
        raise WireError(f"the parameters cannot be unpacked: {error}") from None


def size(record: RecordDict) -> int:
    """Bytes of a message's packed parameters and JSON bodies."""
    arrays = sum(len(array.data) for part in record.array_records.values() for array in part.values())
    bodies = sum(len(str(value)) for part in record.config_records.values() for value in part.values())
    return arrays + bodies


def body(content: Mapping[str, Any]) -> ConfigRecord:
    """A record that holds JSON values."""
    return ConfigRecord({"json": json.dumps(content, allow_nan=False)})


def read_body(message: Message) -> dict[str, Any]:
    """The JSON values of a message.

    Raises WireError when there are none.
    """
    try:
        content = json.loads(str(message.content.config_records[BODY]["json"]))
    except (KeyError, ValueError) as error:
        raise WireError(f"the message has no readable body: {error!r}") from None
    if not isinstance(content, dict):
        raise WireError("the body of the message is not a mapping")
    return content


def read_params(message: Message) -> Params:
    """The parameters of a message.

    Raises WireError when there are none.
    """
    records = message.content.array_records
    if PARAMS not in records:
        raise WireError("the message has no parameters")
    return unpack(records[PARAMS])


def record(content: Mapping[str, Any], params: ArrayRecord | None = None) -> RecordDict:
    """The content of a message: JSON values and, for training, packed parameters."""
    parts: dict[str, Any] = {BODY: body(content)}
    if params is not None:
        parts[PARAMS] = params
    return RecordDict(parts)
