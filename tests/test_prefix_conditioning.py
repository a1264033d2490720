"""Prefix conditioning: what is known reaches the network, is not learned, is kept, and is continued."""

import json

import pytest
import torch
from small_policy import demonstrations, small_policy

from shortcut_policy.action_prefix import ActionPrefix, prefix_mask
from shortcut_policy.config import Component
from shortcut_policy.core.network import BoundNetwork
from shortcut_policy.core.objectives import objective_names
from shortcut_policy.core.objectives.mean_flow import mean_flow_target
from shortcut_policy.core.preconditioning import Preconditioning
from shortcut_policy.data.action_codec import ActionCodec
from shortcut_policy.data.batches import WindowBatch, WindowBatches
from shortcut_policy.data.windows import make_windows
from shortcut_policy.nn.policy_network import KNOWN_ACTIONS, KNOWN_MASK
from shortcut_policy.policy import Policy
from shortcut_policy.policy_batches import PolicyBatches
from shortcut_policy.policy_config import PolicyConfig
from shortcut_policy.training.loss_module import LossModule

HEADS = {
    "unet1d": {"widths": [8, 16], "step_embedding_dim": 8},
    "transformer": {"width": 8, "depth": 1, "heads": 2, "step_embedding_dim": 8},
}
FEW = {"progressive_distillation": {"base_steps": 4}, "reflow": {"pair_steps": 2}, "live_reflow": {"pair_steps": 2}}
ALL = slice(None)


def continuing(prefix_steps=3, head="unet1d", **config):
    policy = small_policy(prefix_steps=prefix_steps, network={"name": head, "options": HEADS[head]}, **config)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():  # at the beginning a transformer predicts 0 whatever it is given
        for parameter in policy.network.head.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    return policy


def windows_of(policy, batch_size=26):
    episodes = demonstrations()
    offset = policy.config.action_offset
    windows = make_windows(episodes.episode_ends, observation_steps=2, horizon=8, action_offset=offset)
    return WindowBatches(episodes, windows, batch_size)


def observe(rows=4):
    return windows_of(small_policy()).windows(torch.arange(rows)).observation


def noise(rows=4, dim=2):
    return torch.randn(rows, 8, dim, generator=torch.Generator().manual_seed(0))


def given(rows=4, steps=2, dim=2):
    return 300 + 50 * torch.randn(rows, steps, dim, generator=torch.Generator().manual_seed(1))


GIVEN, NOISE = given(), noise()


def inputs_of_head(policy):
    """What the head is given from now on, call by call: x with the mask as its last channel."""
    seen = []
    policy.network.head.register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0].detach()))
    return seen


# --- training ---


def test_every_row_of_every_step_has_a_prefix_of_its_own_and_the_same_when_asked_again():
    policy = continuing(prefix_steps=3)
    batches = PolicyBatches(policy, windows_of(policy), seed=5)
    steps = torch.stack([batches(step).condition[KNOWN_MASK].sum(1) for step in range(40)])  # (40, 26)
    assert torch.equal(PolicyBatches(policy, windows_of(policy), seed=5)(39).condition[KNOWN_MASK].sum(1), steps[39])
    assert not torch.equal(
        PolicyBatches(policy, windows_of(policy), seed=6)(39).condition[KNOWN_MASK].sum(1), steps[39]
    )
    shares = torch.bincount(steps.flatten()) / steps.numel()
    assert shares.tolist() == pytest.approx([0.25] * 4, abs=0.05), "uniform on 0 ... 3"
    assert not torch.equal(steps[0], steps[1])


def test_the_rows_of_a_micro_batch_are_those_of_the_whole():
    policy = continuing(mask_padding=True)
    batches = PolicyBatches(policy, windows_of(policy, 12))
    whole, part = batches(5), batches(5, slice(4, 9))
    assert part.condition.keys() == {"position", "angle", KNOWN_ACTIONS, KNOWN_MASK}
    assert all(torch.equal(part.condition[key], values[4:9]) for key, values in whole.condition.items())
    assert torch.equal(part.loss_mask, whole.loss_mask[4:9])


@pytest.mark.parametrize("mask_padding", [False, True])
@pytest.mark.parametrize(("offset", "marks"), [(0, "..... K.... KKK.."), (-1, "..... .K... .KKK.")])
def test_known_are_the_demonstrated_actions_from_now_on_which_nobody_learns(offset, marks, mask_padding):
    policy = continuing(action_offset=offset, mask_padding=mask_padding)
    rows = windows_of(policy).windows(torch.tensor([0, 2, 4]))  # the first episode has 5 steps
    batch = policy.prepare(rows, prefix=torch.tensor([0, 1, 3]))
    mask = batch.condition[KNOWN_MASK]
    assert [word + "..." for word in marks.split()] == ["".join(".K"[known] for known in row) for row in mask.tolist()]
    now = -offset
    assert torch.equal(batch.condition[KNOWN_ACTIONS][1, now], policy.normalizer.action(rows.action)[1, now])
    assert not batch.condition[KNOWN_ACTIONS][~mask].any(), "nothing else is told"
    assert torch.equal(batch.loss_mask, ~mask & ~rows.action_is_pad if mask_padding else ~mask)
    plain = policy.prepare(rows)
    assert not plain.condition[KNOWN_MASK].any()
    assert (plain.loss_mask is None) != mask_padding, "held-out losses are those without a prefix"


def objectives(policy):
    """Of all phases; that of the policy, where it has one."""
    return [phase.objective for phase in policy.objective.phases(100)]


def per_row(objective, policy, batch, draw, copies):
    module = LossModule(policy.network, *copies)
    losses = []

    class Kept:
        def loss(self, *arguments):
            losses.append(objective.loss(*arguments))
            return losses[-1]

    module(Kept(), batch, draw)
    return losses[0].per_row


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", objective_names())
def test_every_objective_learns_beside_what_is_known_and_never_looks_at_what_stands_there(name, head):
    """Noise, targets, tangents of the JVP, teachers' ends: in the place of known actions, none has any influence."""
    policy = continuing(head=head, objective={"name": name, "options": FEW.get(name, {})})
    copies = [
        continuing(head=head, objective={"name": name, "options": FEW.get(name, {})}).network.requires_grad_(False)
    ] * 2
    batch = PolicyBatches(policy, windows_of(policy))(0)
    known = batch.condition[KNOWN_MASK].unsqueeze(-1)
    garbage = 5 * torch.randn(batch.data.shape, generator=torch.Generator().manual_seed(2))
    for objective in objectives(policy):
        draw = objective.draw(batch.data.shape, 0.5, torch.Generator().manual_seed(0))
        loss = per_row(objective, policy, batch, draw, copies)
        spoiled = type(batch)(torch.where(known, garbage, batch.data), batch.condition, loss_mask=batch.loss_mask)
        others = type(draw)(**{**vars(draw), "noise": torch.where(known, 2 * garbage, draw.noise)})
        torch.testing.assert_close(per_row(objective, policy, spoiled, others, copies), loss, rtol=1e-5, atol=1e-6)
        unmasked = type(batch)(spoiled.data, batch.condition)
        without = per_row(objective, policy, unmasked, others, copies)
        assert not torch.allclose(without, loss, rtol=1e-4, atol=1e-5), "the mask is needed"

        before = [parameter.detach().clone() for parameter in policy.network.parameters()]
        optimizer = torch.optim.SGD(policy.network.parameters(), lr=0.1)
        loss.mean().backward()
        optimizer.step()
        after = list(policy.network.parameters())
        assert all(torch.isfinite(parameter).all() for parameter in after)
        first = policy.network.head.input if head == "transformer" else policy.network.head.down[0][0].first[0]
        assert first.weight.grad[:, -1].any(), "the mask is learned from"
        assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("sigma_data", [None, 0.5])
def test_the_derivative_of_mean_flow_is_that_of_a_network_whose_known_actions_stand_still(head, sigma_data):
    policy = continuing(head=head, objective={"name": "mean_flow", "options": {}}).double()
    batch = PolicyBatches(policy, windows_of(policy))(1)
    condition = {key: value.double() if value.is_floating_point() else value for key, value in batch.condition.items()}
    generator = torch.Generator().manual_seed(0)
    x, v = (torch.randn(26, 8, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    t = 0.6 * torch.rand(26, generator=generator, dtype=torch.float64)
    d = 0.1 + 0.3 * torch.rand(26, generator=generator, dtype=torch.float64)
    network = BoundNetwork(policy.network, condition)
    velocity = Preconditioning(sigma_data).velocity(network)
    target = mean_flow_target(network, velocity, x, t, d, v)
    step = 1e-6
    with torch.no_grad():
        back, forth = (velocity(x + sign * step * v, t + sign * step, d - sign * step) for sign in (-1, 1))
    torch.testing.assert_close(target, v + d[:, None, None] * (forth - back) / (2 * step), rtol=1e-5, atol=1e-5)


# --- sampling ---


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", objective_names())
def test_a_chunk_begins_with_what_was_given_to_the_bit_and_the_rest_depends_on_it(name, head):
    policy = continuing(head=head, objective={"name": name, "options": FEW.get(name, {})})
    plain = policy.sample(observe(), 2, noise=noise(), generator=torch.Generator().manual_seed(3))

    def sample(start=GIVEN, begin=NOISE, **steps):
        generator = torch.Generator().manual_seed(3)
        return policy.sample(observe(), 2, known_actions=start, noise=begin, generator=generator, **steps)

    chunk = sample()
    assert torch.equal(chunk[:, :2], given())
    assert (chunk[:, 2:] - plain[:, 2:]).abs().amax(dim=(1, 2)).min() > 1e-3, "pixels"
    elsewhere = noise()
    elsewhere[:, :2] = 3.0
    torch.testing.assert_close(sample(begin=elsewhere), chunk, rtol=1e-5, atol=1e-3)  # what is known has no noise
    for nothing in ({"start": None}, {"start": given(steps=0)}, {"known_steps": torch.zeros(4, dtype=torch.int64)}):
        assert torch.equal(sample(**nothing), plain)
    mixed = sample(known_steps=torch.tensor([2, 0, 1, 2]))
    assert torch.equal(mixed[[0, 3]], chunk[[0, 3]])
    assert torch.equal(mixed[1], plain[1])
    assert torch.equal(mixed[2, 0], given()[2, 0])
    assert not torch.equal(mixed[2, 1], given()[2, 1])


@pytest.mark.parametrize("sigma_data", [None, 0.5])
def test_training_and_sampling_show_the_head_the_same_whatever_x_is_scaled_by(sigma_data):
    policy = continuing(objective={"name": "flow_matching", "options": {"sigma_data": sigma_data}})
    batch = PolicyBatches(policy, windows_of(policy))(0)
    seen = inputs_of_head(policy)
    draw = policy.objective.draw(batch.data.shape, 0.5, torch.Generator().manual_seed(0))
    per_row(policy.objective, policy, batch, draw, (None, None))
    (trained,) = seen
    mask = batch.condition[KNOWN_MASK]
    assert torch.equal(trained[..., 2], mask.float())
    assert torch.equal(trained[mask][:, :2], batch.data[mask])
    x_t = torch.lerp(draw.noise, batch.data, draw.t[:, None, None])
    scaled = not torch.allclose(trained[~mask][:, :2], x_t[~mask])
    assert scaled == (sigma_data is not None)

    seen.clear()
    policy.sample(observe(), 3, known_actions=given(), noise=noise())
    assert len(seen) == 3
    for x in seen:
        torch.testing.assert_close(x[:, :2, :2], policy.normalizer.action(given()))
        assert x[:, :, 2].tolist() == [[1, 1, 0, 0, 0, 0, 0, 0]] * 4


def test_past_actions_are_predicted_and_what_is_given_is_from_now_on():
    policy = continuing(action_offset=-1)
    seen = inputs_of_head(policy)
    chunk = policy.sample(observe(), known_actions=given(), noise=noise())
    assert chunk.shape == (4, 7, 2)
    assert torch.equal(chunk[:, :2], given())
    assert seen[0][0, :, 2].tolist() == [0, 1, 1, 0, 0, 0, 0, 0]
    torch.testing.assert_close(seen[0][:, 1:3, :2], policy.normalizer.action(given()))


def test_poses_are_given_as_the_environment_takes_them():
    codec = ActionCodec("absolute_pose")
    config = PolicyConfig(
        {"position": 2, "angle": 1},
        action_dim=10,
        horizon=8,
        action_steps=3,
        action_codec=codec,
        prefix_steps=2,
        network=Component("unet1d", HEADS["unet1d"]),
    )
    policy, poses = Policy(config), torch.rand(4, 2, 7, generator=torch.Generator().manual_seed(0))
    seen = inputs_of_head(policy)
    chunk = policy.sample(observe(), known_actions=poses, noise=noise(dim=10))
    assert chunk.shape == (4, 8, 7)
    assert torch.equal(chunk[:, :2], poses), "not by way of rot6d"
    torch.testing.assert_close(seen[0][:, :2, :10], codec.encode(poses))


def ramps(prefix_steps, updates=600):
    """A policy that learned chunks which go up or down, with equal probability, whatever it observes."""
    config = PolicyConfig(
        {"nothing": 1},
        action_dim=1,
        observation_steps=1,
        horizon=8,
        action_steps=4,
        prefix_steps=prefix_steps,
        network=Component("unet1d", {"widths": [16, 32], "step_embedding_dim": 16}),
        objective=Component("flow_matching"),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        policy = Policy(config)
    ramp = torch.linspace(0.4, 1.1, 8).repeat(64, 1)
    ramp[::2] *= -1

    class Windows:
        batch_size = num_windows = 64

        def batch(self, step, rows=ALL):
            nothing = torch.zeros(64, 1, 1), ramp.unsqueeze(-1), torch.zeros(64, 8, dtype=torch.bool)
            return WindowBatch({"nothing": nothing[0][rows]}, nothing[1][rows], nothing[2][rows])

    batches, module = PolicyBatches(policy, Windows()), LossModule(policy.network, None, None)
    optimizer = torch.optim.Adam(policy.network.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, updates)  # the last steps settle it
    for step in range(updates):
        draw = policy.objective.draw(torch.Size((64, 8, 1)), 0.0, torch.Generator().manual_seed(step))
        optimizer.zero_grad()
        module(policy.objective, batches(step), draw)[0].backward()
        optimizer.step()
        schedule.step()
    return policy


def test_a_policy_learns_to_go_on_as_it_has_begun():
    policy = ramps(3)
    observation, begin = {"nothing": torch.zeros(64, 1, 1)}, noise(64, dim=1)
    ups = (policy.sample(observation, 8, noise=begin)[:, -1, 0] > 0).sum()
    assert 8 <= ups <= 56, "both occur where nothing is known; how often differs a little with the number of threads"
    for sign in (1.0, -1.0):
        for steps in (1, 3):
            known = sign * torch.linspace(0.4, 1.1, 8)[:steps].repeat(64, 1).unsqueeze(-1)
            chunk = policy.sample(observation, 8, known_actions=known, noise=begin)
            ends = sign * chunk[:, -1, 0]
            assert (ends > 0.5).float().mean() > 0.85, f"{steps} known actions say where it goes"
            jump = (sign * chunk.diff(dim=1)[:, steps - 1]).mean()
            assert float(jump) == pytest.approx(0.1, abs=0.1), "none: a step like any other, not one to the other side"


# --- off, saved, refused ---


def test_without_prefix_steps_nothing_is_any_different():
    """The golden numbers are those of the commit before prefix conditioning."""
    policy = small_policy()
    assert policy.config.prefix_steps == 0
    batch = PolicyBatches(policy, windows_of(policy), 3)(2)
    assert (batch.condition.keys(), batch.loss_mask) == ({"position", "angle"}, None)
    policy = small_policy(objective={"name": "shortcut", "options": {}})
    draw = policy.objective.draw(batch.data.shape, 0.5, torch.Generator().manual_seed(0))
    loss = per_row(policy.objective, policy, batch, draw, (policy.network, None)).detach().mean()
    assert float(loss) == pytest.approx(1.3716075420379639, rel=1e-5)
    chunk = policy.sample(observe(), 2, generator=torch.Generator().manual_seed(1))
    assert float(chunk.sum()) == pytest.approx(17816.3125, rel=1e-5)
    assert policy.network.head.down[0][0].first[0].weight.shape[1] == 2
    assert continuing().network.head.down[0][0].first[0].weight.shape[1] == 3


def test_a_checkpoint_knows_its_prefix_and_an_old_one_has_none(tmp_path):
    policy = continuing()
    policy.save_pretrained(tmp_path / "new")
    loaded = Policy.from_pretrained(tmp_path / "new")
    assert loaded.config == policy.config
    arguments = {"known_actions": given(), "noise": noise()}
    assert torch.equal(loaded.sample(observe(), **arguments), policy.sample(observe(), **arguments))

    plain = small_policy()
    plain.save_pretrained(tmp_path / "old")
    file = tmp_path / "old" / "config.json"
    values = json.loads(file.read_text())
    del values["config"]["prefix_steps"]
    file.write_text(json.dumps(values))
    old = Policy.from_pretrained(tmp_path / "old")
    assert torch.equal(old.sample(observe(), noise=noise()), plain.sample(observe(), noise=noise()))


@pytest.mark.parametrize(
    ("policy", "known", "message"),
    [
        (3, {"known_actions": given(steps=4)}, "known_actions holds 4 steps, but .* trained with prefix_steps=3"),
        (0, {"known_actions": given(steps=1)}, "known_actions holds 1 steps, but .* trained with prefix_steps=0"),
        (3, {"known_actions": given(rows=3)}, r"known_actions must have shape \(4, k, 2\), got \(3, 2, 2\)"),
        (3, {"known_actions": given(dim=3)}, r"known_actions must have shape \(4, k, 2\), got \(4, 2, 3\)"),
        (3, {"known_actions": given()[0]}, r"known_actions must have shape \(4, k, 2\), got \(2, 2\)"),
        (
            3,
            {"known_actions": given(), "known_steps": torch.tensor([0, 1, 2, 3])},
            r"known_steps must be 4 whole numbers in 0 \.\.\. 2, .* got \[0, 1, 2, 3\]",
        ),
        (3, {"known_actions": given(), "known_steps": torch.tensor([1])}, r"known_steps must be 4 .* got \[1\]"),
        (3, {"known_actions": given(), "known_steps": torch.full((4,), -1)}, r"got \[-1, -1, -1, -1\]"),
        (3, {"known_actions": given(), "known_steps": torch.ones(4)}, r"whole numbers .* got \[1\.0, "),
        (0, {"known_steps": torch.ones(4)}, "known_steps=.* says how many of known_actions are known: give these"),
    ],
)
def test_what_cannot_be_known_is_refused(policy, known, message):
    with pytest.raises(ValueError, match=message):
        small_policy(prefix_steps=policy).sample(observe(), **known)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prefix_steps": -1}, "prefix_steps=-1 must be 0 or more"),
        ({"prefix_steps": 8}, "prefix_steps=8 .* leave something of the 8 actions"),
        ({"prefix_steps": 7, "action_offset": -1}, "prefix_steps=7 .* leave something of the 7 actions"),
    ],
)
def test_prefixes_that_leave_nothing_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        small_policy(**changes)


def test_names_that_a_prefix_needs_are_not_those_of_observations():
    observations = {"known_mask": 2, "position": 2}
    assert "known_mask" in Policy(PolicyConfig(observations, action_dim=2)).config.observation_dims, "as it was"
    with pytest.raises(ValueError, match="observation 'known_mask' has a name that prefix_steps needs"):
        Policy(PolicyConfig(observations, action_dim=2, prefix_steps=1))


def test_a_prefix_has_a_fixed_shape():
    prefix = ActionPrefix.checked(given(), torch.tensor([2, 0, 1, 2]), shape=(4, 3, 2))
    assert prefix.actions.shape == (4, 3, 2)
    assert prefix_mask(prefix.steps, 3).int().tolist() == [[1, 1, 0], [0, 0, 0], [1, 0, 0], [1, 1, 0]]
    chunk = torch.zeros(4, 5, 2)
    assert torch.equal(prefix.begin(chunk)[0], torch.cat([given()[0], torch.zeros(3, 2)]))
    assert not chunk.any(), "the chunk itself stays"
