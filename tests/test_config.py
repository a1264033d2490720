import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from shortcut_policy.config import from_mapping, to_mapping


@dataclass(frozen=True)
class Part:
    size: int
    rate: float = 0.5

    def __post_init__(self):
        if self.size < 0:
            raise ValueError(f"size must not be negative, got {self.size}")


@dataclass(frozen=True)
class Whole:
    name: str
    part: Part
    mode: Literal["fast", "slow"] = "fast"
    flag: bool = False
    pair: tuple[int, float] = (1, 2.0)
    many: tuple[int, ...] = ()
    parts: Mapping[str, Part] = field(default_factory=dict)
    list_of_parts: tuple[Part, ...] = ()
    limit: float | None = None
    inner: Part | None = None
    anything: Any = None


def build(**changes):
    return from_mapping(Whole, {"name": "n", "part": {"size": 1}} | changes, "run.")


def test_values_are_converted_to_their_types():
    whole = build(
        pair=[3, 4], many=[1, 2], parts={"a": {"size": 2}}, list_of_parts=[{"size": 5}], limit=1, inner={"size": 6}
    )
    assert (whole.pair, whole.many) == ((3, 4.0), (1, 2))
    assert (whole.parts, whole.list_of_parts) == ({"a": Part(2)}, (Part(5),))
    assert (whole.limit, whole.inner) == (1.0, Part(6))
    assert isinstance(whole.pair[1], float), "an int is a float where one is due"
    assert isinstance(whole.limit, float)
    assert build(limit=None, inner=None) == Whole("n", Part(1))
    assert build(part=Part(7)).part == Part(7), "objects are taken as they are"
    assert build(anything={"x": [1]}).anything == {"x": [1]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nam": 1}, "unknown option run.nam: known are name, part, mode"),
        ({"part": {}}, "option run.part.size is missing"),
        ({"part": {"size": 1, "sise": 2}}, "unknown option run.part.sise: known are size, rate"),
        ({"part": 3}, "run.part must be a mapping, got 3"),
        ({"part": {"size": "1"}}, "run.part.size must be of type int, got '1'"),
        ({"part": {"size": 1.0}}, "run.part.size must be of type int, got 1.0"),
        ({"part": {"size": True}}, "run.part.size must be of type int, got True"),
        ({"part": {"size": 1, "rate": True}}, "run.part.rate must be of type float, got True"),
        ({"part": {"size": 1, "rate": "1e-3"}}, "run.part.rate must be of type float, got '1e-3'"),
        ({"part": {"size": None}}, "run.part.size must be of type int, got None"),
        ({"part": {"size": -1}}, "size must not be negative, got -1"),
        ({"name": 5}, "run.name must be of type str, got 5"),
        ({"flag": 1}, "run.flag must be of type bool, got 1"),
        ({"mode": "medium"}, "run.mode must be one of fast, slow, got 'medium'"),
        ({"pair": [1]}, r"run.pair must have 2 entries, got \[1\]"),
        ({"pair": [1, 2, 3]}, r"run.pair must have 2 entries, got \[1, 2, 3\]"),
        ({"pair": "12"}, "run.pair must be a list, got '12'"),
        ({"many": [1, "b"]}, r"run.many\[1\] must be of type int, got 'b'"),
        ({"parts": [1]}, r"run.parts must be a mapping, got \[1\]"),
        ({"parts": {"a": {"size": "x"}}}, "run.parts.a.size must be of type int, got 'x'"),
        ({"list_of_parts": [{"size": 1}, {}]}, r"option run.list_of_parts\[1\].size is missing"),
        ({"limit": "high"}, "run.limit must be of type float, got 'high'"),
        ({"inner": {"size": 1.5}}, "run.inner.size must be of type int, got 1.5"),
    ],
)
def test_a_wrong_value_is_quoted_with_its_path(changes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        build(**changes)


def test_what_is_no_mapping_is_refused():
    with pytest.raises(ValueError, match=r"^run must be a mapping, got \['a'\]"):
        from_mapping(Whole, ["a"], "run.")
    with pytest.raises(ValueError, match=r"^Part must be a mapping, got None"):
        from_mapping(Part, None)


def test_to_mapping_is_the_inverse_through_json():
    whole = Whole(
        "n", Part(1, 0.1), "slow", True, (2, 3.0), (4, 5), {"a": Part(6)}, (Part(7),), None, Part(8), {"x": [1, None]}
    )
    mapping = to_mapping(whole)
    assert mapping["pair"] == [2, 3.0]
    assert mapping["parts"] == {"a": {"size": 6, "rate": 0.5}}
    assert from_mapping(Whole, json.loads(json.dumps(mapping))) == whole
