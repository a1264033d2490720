import dataclasses
import json

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from shortcut_policy.data.action_codec import ActionCodec


def absolute_actions(arms, steps=50, seed=0):
    generator = np.random.default_rng(seed)
    parts = []
    for _ in range(arms):
        position, gripper = generator.uniform(-1, 1, (steps, 3)), generator.choice((-1.0, 1.0), (steps, 1))
        rotation = (Rotation.from_rotvec((np.pi, 0, 0)) * Rotation.random(steps, generator)).as_rotvec()
        rotation[0] = np.pi, 0, 0  # a gripper that points down
        parts += [position, rotation, gripper]
    return np.concatenate(parts, axis=1)


@pytest.mark.parametrize("arms", [1, 2])
def test_absolute_poses_are_encoded_arm_by_arm(arms):
    actions = absolute_actions(arms)
    codec = ActionCodec("absolute_pose", arms)
    encoded = codec.encode(torch.tensor(actions))
    assert (encoded.shape[-1], codec.encoded_dim(7 * arms)) == (10 * arms, 10 * arms)
    for arm in range(arms):
        ours, theirs = encoded[:, 10 * arm : 10 * arm + 10].numpy(), actions[:, 7 * arm : 7 * arm + 7]
        np.testing.assert_array_equal(ours[:, :3], theirs[:, :3])
        rows = Rotation.from_rotvec(theirs[:, 3:6]).as_matrix()[:, :2].reshape(-1, 6)
        np.testing.assert_allclose(ours[:, 3:9], rows, atol=1e-14)
        np.testing.assert_array_equal(ours[:, 9], theirs[:, 6])


@pytest.mark.parametrize("arms", [1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_decode_undoes_encode(arms, dtype):
    actions = absolute_actions(arms).astype(dtype)
    codec = ActionCodec("absolute_pose", arms)
    decoded = codec.decode(codec.encode(actions))
    assert isinstance(decoded, np.ndarray)
    assert decoded.dtype == dtype
    for ours, theirs in zip(np.split(decoded, arms, axis=1), np.split(actions, arms, axis=1), strict=True):
        np.testing.assert_array_equal(ours[:, (0, 1, 2, 6)], theirs[:, (0, 1, 2, 6)])
        difference = Rotation.from_rotvec(ours[:, 3:6]) * Rotation.from_rotvec(theirs[:, 3:6]).inv()
        assert difference.magnitude().max() < (1e-6 if dtype == np.float32 else 1e-13)


def test_arrays_and_tensors_of_any_leading_shape_agree():
    actions = absolute_actions(2).reshape(5, 10, 14)
    actions.flags.writeable = False
    codec = ActionCodec("absolute_pose", 2)
    encoded = codec.encode(actions)
    assert encoded.shape == (5, 10, 20)
    np.testing.assert_array_equal(encoded, codec.encode(torch.tensor(actions)))
    np.testing.assert_array_equal(encoded[3, 4], codec.encode(actions[3, 4]))
    assert codec.encode(actions[:0]).shape == (0, 10, 20)


def test_decode_takes_what_a_network_says():
    """Unscaled and sheared rows, as an untrained network gives them, still make a rotation."""
    codec = ActionCodec("absolute_pose")
    encoded = torch.tensor([0.1, 0.2, 0.3, 0.0, -3.0, 0.0, 0.5, 7.0, 0.0, -0.9])  # rows (0, -1, 0) and (1, 0, 0)
    decoded = codec.decode(encoded).tolist()
    assert decoded == pytest.approx([0.1, 0.2, 0.3, 0, 0, np.pi / 2, -0.9], abs=1e-6)
    assert codec.decode(torch.zeros(10)).tolist() == [0] * 7


@pytest.mark.parametrize(("codec", "dim"), [(ActionCodec(), 2), (ActionCodec("delta_pose", arms=2), 14)])
def test_other_representations_pass_unchanged(codec, dim):
    for actions in (torch.randn(3, 4, dim), np.ones((3, dim), np.float32)):
        assert codec.encode(actions) is actions
        assert codec.decode(actions) is actions
    assert codec.encoded_dim(dim) == dim
    assert codec.rotation_columns() == ()


def test_rotation_columns_are_those_that_hold_rot6d():
    codec = ActionCodec("absolute_pose", 2)
    assert codec.rotation_columns() == (3, 4, 5, 6, 7, 8, 13, 14, 15, 16, 17, 18)
    rest = absolute_actions(2)
    rest[:, (3, 4, 5, 10, 11, 12)] = 0
    encoded = codec.encode(rest)[:, codec.rotation_columns()]
    assert (encoded == np.array([1, 0, 0, 0, 1, 0] * 2)).all()


def test_survives_json():
    codec = ActionCodec("absolute_pose", 2)
    assert ActionCodec(**json.loads(json.dumps(dataclasses.asdict(codec)))) == codec


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("absolute",), "one of as_stored, delta_pose, absolute_pose, got 'absolute'"),
        (("delta_pose", 0), "arms must be a positive integer, got 0"),
        (("delta_pose", 1.0), "arms must be a positive integer, got 1.0"),
        (("delta_pose", True), "arms must be a positive integer, got True"),
    ],
)
def test_a_wrong_codec_is_quoted(arguments, message):
    with pytest.raises(ValueError, match=message):
        ActionCodec(*arguments)


@pytest.mark.parametrize(
    ("representation", "arms", "dim", "call", "message"),
    [
        ("delta_pose", 1, 6, "encode", "'delta_pose' of 1 arm have 7 numbers, got 6"),
        ("delta_pose", 2, 7, "decode", "'delta_pose' of 2 arms have 14 numbers, got 7"),
        ("absolute_pose", 1, 14, "encode", "'absolute_pose' of 1 arm have 7 numbers, got 14"),
        ("absolute_pose", 2, 14, "decode", "encoded actions 'absolute_pose' of 2 arms have 20 numbers, got 14"),
    ],
)
def test_a_wrong_width_is_quoted(representation, arms, dim, call, message):
    with pytest.raises(ValueError, match=message):
        getattr(ActionCodec(representation, arms), call)(torch.zeros(3, dim))
    if call == "encode":
        for method in ("check", "encoded_dim"):
            with pytest.raises(ValueError, match=message):
                getattr(ActionCodec(representation, arms), method)(dim)


def test_a_mismatch_is_refused_quoting_both():
    absolute = ActionCodec("absolute_pose", 2)
    absolute.check_same(ActionCodec("absolute_pose", 2))
    ActionCodec(arms=1).check_same(ActionCodec(arms=2))  # without a meaning, arms mean nothing
    expected = "the policy has actions 'absolute_pose' of 2 arms, but lift.hdf5 has 'delta_pose' of 1 arm: choose"
    with pytest.raises(ValueError, match=expected):
        absolute.check_same(ActionCodec("delta_pose"), theirs="lift.hdf5")
    with pytest.raises(ValueError, match="of 2 arms, but the data set has 'absolute_pose' of 1 arm"):
        absolute.check_same(ActionCodec("absolute_pose"))
