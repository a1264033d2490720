import json
import math

import pytest

from shortcut_policy.config import Component, from_mapping, to_mapping
from shortcut_policy.data.action_codec import ActionCodec
from shortcut_policy.policy_config import PolicyConfig

DIMS = {"position": 2, "angle": 1}


def test_defaults_are_diffusion_policys_window():
    config = PolicyConfig(DIMS, 2)
    assert (config.observation_steps, config.horizon, config.action_steps, config.action_offset) == (2, 16, 8, 0)
    assert (config.network, config.objective) == (Component("unet1d"), Component("shortcut"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observation_dims": {}}, r"at least one channel, got \{\}"),
        ({"observation_dims": {"position": 0}}, r"at least one channel, got \{'position': 0\}"),
        ({"action_dim": 0}, "action_dim must be positive, got 0"),
        ({"observation_steps": 0}, "observation_steps must be positive, got 0"),
        ({"horizon": -1}, "horizon must be positive, got -1"),
        ({"action_steps": 0}, "action_steps must be positive, got 0"),
        ({"action_offset": 1}, r"action_offset must lie in \(-horizon, 0\] = \(-16, 0\], got 1"),
        ({"action_offset": -16}, r"\(-16, 0\], got -16"),
        ({"action_codec": ActionCodec("absolute_pose")}, "action_dim=2 does not fit actions 'absolute_pose' of 1 arm"),
        ({"noise_scale": -0.5}, "noise_scale must be 0 or more and finite, got -0.5"),
        ({"noise_scale": math.inf}, "noise_scale must be 0 or more and finite, got inf"),
        ({"action_steps": 17}, "action_steps=17 .* horizon=16 with action_offset=0 holds 16"),
        ({"action_steps": 16, "action_offset": -1}, "action_steps=16 .* action_offset=-1 holds 15"),
    ],
)
def test_impossible_numbers_are_quoted(changes, message):
    with pytest.raises(ValueError, match=message):
        PolicyConfig(**{"observation_dims": DIMS, "action_dim": 2} | changes)


def test_the_longest_chunk_that_can_be_executed_is_allowed():
    assert PolicyConfig(DIMS, 2, action_steps=16).action_steps == 16
    assert PolicyConfig(DIMS, 2, action_steps=15, action_offset=-1).action_steps == 15


def test_json_keeps_the_config_and_the_order_of_the_observations():
    config = PolicyConfig(
        {"z": 1, "a": 2},
        2,
        network=Component("unet1d", {"widths": [8, 16]}),
        normalization="gaussian",
        metadata={"task": "pusht", "scores": [1.0, None]},
    )
    loaded = from_mapping(PolicyConfig, json.loads(json.dumps(to_mapping(config))))
    assert loaded == config
    assert list(loaded.observation_dims) == ["z", "a"]


def test_an_unknown_normalization_is_quoted():
    values = {"observation_dims": DIMS, "action_dim": 2, "normalization": "range"}
    with pytest.raises(
        ValueError, match=r"config\.normalization must be one of limits, gaussian, identity, got 'range'"
    ):
        from_mapping(PolicyConfig, values, "config.")
