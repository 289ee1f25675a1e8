"""The converter between values and what ``json`` can write, for all classes of fields."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from sched_core._model.policy import CatchUp, Coalesce, Drop
from sched_core.schedule.encoding import (
    decode_duration,
    decode_moment,
    decode_moments,
    encode_duration,
    encode_moment,
    encode_moments,
)

if TYPE_CHECKING:
    from cattrs import Converter

T = TypeVar("T")

_MISFIRES: dict[str, type[Coalesce | CatchUp | Drop]] = {
    "coalesce": Coalesce,
    "catch_up": CatchUp,
    "drop": Drop,
}


@cache
def converter() -> Converter:
    """Return the converter of all classes of fields."""
    from cattrs import Converter

    made = Converter(omit_if_default=True, forbid_extra_keys=True, detailed_validation=False)
    made.register_unstructure_hook(datetime, encode_moment)
    made.register_structure_hook(datetime, lambda value, _: decode_moment(value))
    made.register_unstructure_hook(timedelta, encode_duration)
    made.register_structure_hook(timedelta, lambda value, _: decode_duration(value))
    made.register_unstructure_hook_func(_is_moments, encode_moments)
    made.register_structure_hook_func(_is_moments, lambda value, _: decode_moments(value))
    for plain in (int, str, bool):
        made.register_structure_hook(plain, _exactly)
    made.register_structure_hook(float, lambda value, _: _number(value))

    kinds = {cls: kind for kind, cls in _MISFIRES.items()}

    def encode_misfire(misfire: Coalesce | CatchUp | Drop) -> dict[str, Any]:
        fields: dict[str, Any] = made.unstructure(misfire, unstructure_as=type(misfire))
        return {"kind": kinds[type(misfire)]} | fields

    def decode_misfire(value: Any, _: object) -> Coalesce | CatchUp | Drop:
        fields = dict(value)
        kind = fields.pop("kind")
        if kind == "run_all":  # as it was called, when its window was a day unless given
            return made.structure({"window": 86_400} | fields, CatchUp)
        return made.structure(fields, _MISFIRES[kind])

    union = Coalesce | CatchUp | Drop
    made.register_unstructure_hook(union, encode_misfire)
    made.register_structure_hook(union, decode_misfire)
    kept = timedelta | Literal["default"] | None
    made.register_unstructure_hook(kept, _encode_kept)
    made.register_structure_hook(kept, lambda value, _: _decode_kept(value))
    return made


def _is_moments(kind: Any) -> bool:
    return bool(kind == tuple[datetime, ...])


def _encode_kept(kept: Any) -> Any:
    return encode_duration(kept) if isinstance(kept, timedelta) else kept


def _decode_kept(value: Any) -> timedelta | Literal["default"] | None:
    if value is None:
        return None
    return "default" if value == "default" else decode_duration(value)


def _exactly(value: Any, kind: type[T]) -> Any:
    """Refuse a value of another type, which a lenient converter would convert."""
    if type(value) is not kind:
        raise TypeError(f"must be {kind.__name__}, not {value!r}")
    return value


def _number(value: Any) -> float:
    if type(value) is not int and type(value) is not float:
        raise TypeError(f"must be a number, not {value!r}")
    return value
