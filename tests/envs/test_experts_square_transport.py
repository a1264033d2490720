"""The experts of Square and Transport in the real simulator: they succeed in the way that they say they chose."""

import math

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import envs
from envs.experts import env_name, make_expert
from envs.experts import square as square_expert
from envs.experts import transport as transport_expert
from envs.experts.episode import run_episode
from envs.experts.motion import OPEN

pytest.importorskip("robosuite")


@pytest.fixture(scope="module")
def square():
    env = envs.make("square")
    yield env
    env.close()


@pytest.fixture(scope="module")
def transport():
    env = envs.make("transport")
    yield env
    env.close()


@pytest.fixture(scope="module")
def transported(transport):
    return run_episode(transport, "transport", 0)


def ways_drawn(task, env, count=60):
    return [make_expert(task, env, np.random.default_rng(i)).way for i in range(count)]


def test_however_the_nut_lies_it_can_be_put_on_the_peg():
    several = 0
    yaws = np.linspace(-math.pi, math.pi, 721)
    for nut_yaw in yaws:
        for hand_yaw in (math.pi / 2 - 0.15, math.pi / 2, math.pi / 2 + 0.15):
            grips = square_expert._reachable(nut_yaw, hand_yaw)
            assert grips
            several += len({grip.way for grip in grips}) > 1
            for grip in grips:
                fingers = (
                    hand_yaw + grip.turn - nut_yaw
                )  # from the handle's direction: square to it, on the side it says
                assert math.sin(fingers) == pytest.approx(-1 if grip.is_reversed else 1)
    assert several > 0.85 * 3 * len(yaws)


def test_a_wrist_turns_the_way_it_can():
    behind = square_expert._reachable(math.pi, math.pi / 2)  # the handle points to the robot, as it shall in the end
    assert square_expert._Grip("near", math.pi, False) in behind
    assert all(-1.6 < grip.turn < 3.6 for grip in behind)
    assert not [grip for grip in behind if grip.turn == -math.pi]


@pytest.mark.parametrize("seed", [1, 5])
def test_square_puts_the_nut_on_the_peg_as_it_said(square, seed):
    episode = run_episode(square, "square", seed)
    assert episode.success
    assert 60 < len(episode.actions) < 250
    position, rotation = episode.observations["SquareNut_pos"], episode.observations["SquareNut_quat"]
    peg = square.unwrapped.simulator.sim.data.get_body_xpos("peg1")
    assert np.abs(position[-1, :2] - peg[:2]).max() < 0.01
    assert position[:, 2].max() > 0.95 > position[-1, 2], "it has come from above the peg"
    handle = Rotation.from_quat(rotation[-1]).apply((1, 0, 0))
    assert abs(math.remainder(math.atan2(handle[1], handle[0]) - square_expert.WAYS[episode.way], math.tau)) < 0.4
    assert episode.actions[-1, 6] == OPEN


def test_square_can_choose_from_the_same_state(square):
    env = square.unwrapped
    env.reset(seed=2)
    ways = ways_drawn("square", env)
    assert set(ways) <= set(square_expert.WAYS)
    counts = [ways.count(way) for way in set(ways)]
    assert len(counts) > 1
    assert min(counts) > 60 / len(counts) / 2


def test_transport_succeeds(transported):
    assert transported.success
    assert transported.actions.shape == (len(transported.actions), 14)
    assert len(transported.actions) < 700
    last = {key: values[-1] for key, values in transported.observations.items()}
    assert last["lid_handle_pos"][0] < 0, "the lid lies beside its bin"
    assert last["lid_handle_pos"][2] < 0.85
    for thing, place in (("trash_pos", "trash_bin_pos"), ("payload_pos", "target_bin_pos")):
        assert np.abs(last[thing] - last[place])[:2].max() < 0.15
        assert last[thing][2] < 0.95


def test_transport_hands_over_on_the_side_it_said(transported):
    gives, takes = transported.actions[:, 6], transported.actions[:, 13]
    closes = np.flatnonzero(np.diff(takes) > 0)
    opens = np.flatnonzero(np.diff(gives) < 0)
    assert len(closes) >= 2, "the trash, the hammer"
    assert opens[-1] > closes[-1], "the giver lets go after the taker has closed its fingers"
    hammer = transported.observations["payload_pos"]
    assert hammer[closes[-1], 2] > 0.95, "in the air"
    assert np.sign(hammer[closes[-1], 0]) == transport_expert.WAYS[transported.way]
    assert hammer[opens[-1] :, 2].min() > 0.8, "it has not fallen"


def test_transport_can_choose_from_the_same_state_and_repeats_itself(transport, transported):
    env = transport.unwrapped
    env.reset(seed=0)
    ways = ways_drawn("transport", env)
    assert {*ways} == {*transport_expert.WAYS}
    assert 15 < ways.count("start_side") < 45
    expert = make_expert("transport", env, np.random.default_rng((0, 1)))  # as the episode's
    assert expert.way == transported.way
    for action in transported.actions[:5]:
        taken = expert.act()
        np.testing.assert_array_equal(taken, action)
        env.step(taken)


def test_they_are_registered(square, transport):
    for task, env in (("square", square), ("transport", transport)):
        assert env_name(task) == type(env.unwrapped.simulator).__name__
