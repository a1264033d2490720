"""Arrays in msgpack: round trips, openpi's bytes, and everything that must be refused."""

import pickle
from collections import OrderedDict
from contextlib import suppress

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from shortcut_policy.realtime.wire import pack, unpack

NUMBERS = st.one_of(arrays.boolean_dtypes(), *[kind(endianness="?") for kind in (arrays.integer_dtypes,
                    arrays.unsigned_integer_dtypes, arrays.floating_dtypes)])  # fmt: skip


def described(**changes):
    """The bytes of an array of two float32, some of its description replaced; written without our code."""
    fields = {"__ndarray__": True, "data": b"\0" * 8, "dtype": "<f4", "shape": [2], **changes}
    return msgpack.packb({"x": {key.encode(): value for key, value in fields.items()}})


@settings(max_examples=60, deadline=None)
@given(NUMBERS.flatmap(lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, min_side=0, max_side=4))))
def test_arrays_of_numbers_come_back_as_they_were(array):
    back = unpack(pack({"x": array}))["x"]
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    np.testing.assert_array_equal(back, array)
    assert back.flags.writeable


def test_strided_arrays_and_scalars_and_plain_values():
    strided = np.arange(24, dtype=np.int16).reshape(4, 6)[::2, ::-3]
    message = {"a": strided, "b": np.float32(0.25), "c": [1, 2.5, None, True, "ö", b"\xff"], "d": {"e": np.uint8(7)}}
    back = unpack(pack(message))
    np.testing.assert_array_equal(back["a"], strided)
    assert back["b"] == np.float32(0.25)
    assert back["b"].dtype == np.float32
    assert back["c"] == message["c"]
    assert back["d"]["e"].dtype == np.uint8


def test_the_bytes_are_openpis():
    array = np.array([[1.5, -2.0]], np.float32)
    entries = OrderedDict(
        [(b"__ndarray__", True), (b"data", array.tobytes()), (b"dtype", "<f4"), (b"shape", (1, 2))]
    )  # as its client lays them down
    assert pack(array) == msgpack.packb(entries)
    np.testing.assert_array_equal(unpack(msgpack.packb(entries)), array)
    scalar = {b"__npgeneric__": True, b"data": 3, b"dtype": "<i4"}
    assert pack(np.int32(3)) == msgpack.packb(scalar)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "0 bytes"),
        (b"\xc1", "1 bytes"),
        (msgpack.packb({"a": 1})[:-1], "incomplete"),
        (msgpack.packb(1) + b"\0", "extra data"),
        (b"\x91" * 100_000, "100000 bytes"),
        (msgpack.packb([{}] * 3000), "more than 1024 maps"),
        (msgpack.packb([0] * 10_000), "10000"),
        (msgpack.packb({1: 2}), "not allowed"),
        (msgpack.packb(msgpack.ExtType(3, b"abc")), "type 3"),
        (msgpack.packb("\ud800", unicode_errors="surrogatepass"), "utf-8"),
        (described(dtype="|O"), "'|O'"),
        (described(dtype="|O", data=pickle.dumps([1, 2]), shape=[1]), "'|O'"),
        (described(dtype="|V4"), "'|V4'"),
        (described(dtype="<c8"), "'<c8'"),
        (described(dtype="<M8[s]"), "'<M8[s]'"),
        (described(dtype="i4,i4"), "'i4,i4'"),
        (described(dtype="<f4 "), "'<f4 '"),
        (described(dtype=3), "'3'"),
        (described(dtype=[["a", "<f4"]]), "dtype"),
        (described(shape=[3]), "(3,)"),
        (described(shape=[-2]), "-2"),
        (described(shape=[2**40, 2**40]), "does not fit"),
        (described(shape=2), "got 2"),
        (described(shape=[2.0]), "2.0"),
        (described(shape=[1] * 40), "32"),
        (described(data="text"), "str"),
        (described(data=b"\0" * 7), "7 bytes"),
        (described(more=1), "more"),
        (msgpack.packb({b"__ndarray__": True}), "keys"),
        (msgpack.packb({b"__npgeneric__": True, b"data": b"x", b"dtype": "<f4"}), "bytes"),
        (msgpack.packb({b"__npgeneric__": True, b"data": 1, b"dtype": "|O"}), "'|O'"),
        (msgpack.packb({b"__npgeneric__": True, b"dtype": "<f4"}), "keys"),
    ],
)
def test_what_cannot_be_an_array_is_refused(data, reason):
    with pytest.raises(ValueError, match=r"cannot be read") as caught:
        unpack(data)
    assert reason in str(caught.value)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60), st.integers(0, 60), st.integers(0, 255))
def test_damaged_messages_raise_nothing_but_value_errors(noise, place, byte):
    valid = bytearray(described())
    valid[place % len(valid)] = byte
    for data in (noise, bytes(valid), bytes(valid) + noise, bytes(valid[:place])):
        with suppress(ValueError):
            unpack(data)


@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        (np.array([object()]), "object"),
        (np.array(["text"]), "<U4"),
        (np.zeros(2, np.complex64), "complex64"),
        (np.zeros(2, "i4,i4"), "i4"),
        (object(), "type object"),
        (2**70, "cannot be sent"),
    ],
)
def test_what_may_not_be_sent(value, quoted):
    with pytest.raises(ValueError, match="cannot be sent") as caught:
        pack({"x": value})
    assert quoted in str(caught.value)
