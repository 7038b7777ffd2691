"""Records that are written as JSON: a dataclass says what is in one, and pydantic checks it.

A record is a frozen dataclass of pydantic whose fields have the types below. They are strict: true
is no number, and neither is "1" or NaN. Keys that a record does not know are left out when it is
read, so that a later version may add some.
"""

from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    Field,
    InstanceOf,
    PlainSerializer,
    PlainValidator,
    StrictFloat,
    StrictInt,
    TypeAdapter,
    ValidationError,
)

from unetseg.classes import ClassTable
from unetseg.errors import InputError


def _to_counts(numbers: object) -> NDArray[np.int64]:
    array = np.array(numbers)
    if array.size and array.dtype.kind != "i":
        raise ValueError("counts that are no whole numbers")
    return array.astype(np.int64)


def _to_list(array: NDArray[Any]) -> list[Any]:
    numbers: list[Any] = array.tolist()
    return numbers


# pydantic's own `str` refuses a file name that is no UTF-8, in which Python keeps surrogates.
Text = InstanceOf[str]
Count = Annotated[StrictInt, Field(ge=0)]
Number = Annotated[StrictFloat, Field(allow_inf_nan=False)]
Positive = Annotated[Number, Field(gt=0)]
Classes = Annotated[
    ClassTable,
    PlainValidator(lambda x: x if isinstance(x, ClassTable) else ClassTable.from_dict(x)),
    PlainSerializer(ClassTable.to_dict),
]
IntArray = Annotated[
    NDArray[np.int64],
    PlainValidator(_to_counts),
    PlainSerializer(_to_list),
]
FloatArray = Annotated[
    NDArray[np.float64],
    PlainValidator(lambda numbers: np.array(numbers, np.float64)),
    PlainSerializer(_to_list),
]

# The name that pydantic gives to a fault, and the words for the kind of value that is due.
_WANTED = {
    "int_type": "a whole number",
    "float_type": "a finite number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "is_instance_of": "a text",
    "string_type": "a text",
    "dict_type": "a table",
    "dataclass_type": "a table",
    "tuple_type": "a list",
    "list_type": "a list",
    "literal_error": "{expected}",
    "greater_than": "above {gt:g}",
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
}

Record = TypeVar("Record")
_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)


def read_record(kind: type[Record], data: object, what: str) -> Record:
    """Return the record that ``data`` holds.

    Args:
        kind: A dataclass.
        data: The result of ``json.loads``.
        what: The name of the record in an error.

    Raises:
        InputError: A key is missing, or its value is of another type or out of range.
    """
    try:
        record: Record = _adapter(kind).validate_python(data)
        return record
    except ValidationError as error:
        raise InputError(what, _problem(error)) from None


def to_plain(record: object) -> dict[str, Any]:
    """Return a record as a dictionary that ``json.dumps`` takes."""
    plain: dict[str, Any] = _adapter(type(record)).dump_python(record)
    return plain


def _problem(error: ValidationError) -> str:
    """Say the first fault that pydantic found."""
    fault = error.errors(include_url=False)[0]
    name = ".".join(map(str, fault["loc"])) or "the whole"
    if fault["type"] == "missing":
        return f"{name} is missing"
    if fault["type"] == "value_error":  # raised by the record itself
        return str(fault["ctx"]["error"])
    if fault["type"] not in _WANTED:
        return f"{name}: {fault['msg']}"
    wanted = _WANTED[fault["type"]].format(**fault.get("ctx", {}))
    return f"{name} is {fault['input']!r:.40}, not {wanted}"
