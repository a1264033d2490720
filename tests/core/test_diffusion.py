"""Diffusion against `diffusers`: the noise levels, noised points, targets, and whole trajectories of both samplers."""

import pytest
import torch
from networks import Recorder, bind

from shortcut_policy.core.noise_schedule import NoiseSchedule
from shortcut_policy.core.objectives.base import Batch, Networks
from shortcut_policy.core.objectives.diffusion import Diffusion

diffusers = pytest.importorskip("diffusers")

BETAS = {"squared_cosine": "squaredcos_cap_v2", "linear": "linear"}
PREDICTIONS = {"epsilon": "epsilon", "velocity": "v_prediction"}
SHAPE = (6, 5, 3)


def scheduler(kind, objective):
    """Theirs, set up as ours is."""
    return kind(
        num_train_timesteps=objective.train_steps,
        beta_schedule=BETAS[objective.betas],
        beta_start=1e-4,
        beta_end=0.02,
        prediction_type=PREDICTIONS[objective.prediction],
        timestep_spacing=objective.spacing,
        clip_sample=objective.clip is not None,
        clip_sample_range=objective.clip or 1.0,
    )


def theirs(kind, objective, num_steps, model, noise, step_noise=None):
    """Their trajectory with our network, which is told t = 1 - (k + 1) / K."""
    schedule = scheduler(kind, objective)
    schedule.set_timesteps(num_steps)
    x = noise.clone()
    for number, k in enumerate(schedule.timesteps):
        told = torch.full((len(x),), float(1 - (k + 1) / objective.train_steps), dtype=x.dtype)
        output = model(x, told, torch.zeros(len(x), dtype=x.dtype))
        stepped = schedule.step(output, k, x, return_dict=True)
        if step_noise is not None:  # their own noise is replaced by ours: mean + sigma z
            is_last = number == len(schedule.timesteps) - 1
            sigma = 0.0 if is_last else float(schedule._get_variance(k)) ** 0.5
            quiet = torch.Generator().manual_seed(number)
            drawn = schedule.step(output, k, x, generator=torch.Generator().manual_seed(number)).prev_sample
            own = torch.randn(x.shape, generator=quiet, dtype=x.dtype)
            x = drawn - sigma * own + (0.0 if is_last else sigma * step_noise[number])
        else:
            x = stepped.prev_sample
    return x


@pytest.mark.parametrize("betas", BETAS)
def test_noise_levels_are_those_of_diffusers(betas):
    expected = diffusers.DDPMScheduler(100, 1e-4, 0.02, BETAS[betas]).alphas_cumprod
    torch.testing.assert_close(NoiseSchedule(100, betas).alpha_bar().float(), expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_loss_is_that_of_noised_points_and_targets_of_diffusers(prediction):
    objective = Diffusion(prediction=prediction)
    draw = objective.draw(torch.Size(SHAPE), 0.0, torch.Generator().manual_seed(0))
    data, network = torch.randn(SHAPE), Recorder()
    loss = objective.loss(Networks(bind(network)), Batch(data), draw)
    schedule = scheduler(diffusers.DDPMScheduler, objective)
    noised = schedule.add_noise(data, draw.noise, draw.k)
    target = draw.noise if prediction == "epsilon" else schedule.get_velocity(data, draw.noise, draw.k)
    (x, t, d), *more = network.calls
    assert not more
    torch.testing.assert_close(x, noised, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(t, 1 - (draw.k + 1) / 100)
    assert not d.any()
    with torch.no_grad():
        expected = (network(noised, t, d, None) - target).square().mean(dim=(1, 2))
    torch.testing.assert_close(loss.per_row.detach(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize(
    ("num_steps", "spacing"), [(100, "trailing"), (10, "trailing"), (10, "leading"), (1, "trailing")]
)
@pytest.mark.parametrize("clip", [1.0, None])
def test_ddim_follows_diffusers(prediction, num_steps, spacing, clip):
    objective = Diffusion(prediction=prediction, spacing=spacing, clip=clip)
    network, noise = bind(Recorder(dtype=torch.float64)), torch.randn(SHAPE, dtype=torch.float64)
    sampler = objective.sampler(num_steps)
    assert (sampler.evaluations, sampler.step_noises) == (num_steps, 0)
    with torch.no_grad():
        expected = theirs(diffusers.DDIMScheduler, objective, num_steps, network, noise)
        torch.testing.assert_close(sampler(network, noise), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("num_steps", [100, 10])
def test_ddpm_follows_diffusers(prediction, num_steps):
    objective = Diffusion(prediction=prediction, sampling="ddpm", betas="linear")
    network, noise = bind(Recorder(dtype=torch.float64)), torch.randn(SHAPE, dtype=torch.float64)
    sampler = objective.sampler(num_steps)
    assert sampler.step_noises == num_steps - 1
    step_noise = torch.randn(num_steps - 1, *SHAPE, dtype=torch.float64)
    with torch.no_grad():
        expected = theirs(diffusers.DDPMScheduler, objective, num_steps, network, noise, step_noise)
        torch.testing.assert_close(sampler(network, noise, step_noise), expected, rtol=1e-3, atol=1e-4)


def test_with_the_exact_noise_of_a_single_point_every_sampler_arrives():
    star = torch.tensor([0.3, -0.6, 0.9], dtype=torch.float64)
    objective = Diffusion(clip=None)
    levels = objective.schedule.alpha_bar()

    def exact(x, t, d):
        a = levels[(100 * (1 - t)).round().long() - 1].reshape(-1, 1, 1)
        return (x - a.sqrt() * star) / (1 - a).sqrt()

    noise = torch.randn(SHAPE, dtype=torch.float64)
    for steps in (1, 7, 100):
        sample = objective.sampler(steps)(exact, noise)
        torch.testing.assert_close(sample, star.expand(SHAPE), rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    ("options", "quoted"),
    [
        ({"train_steps": 0}, "0"),
        ({"betas": "cosine"}, "'cosine'"),
        ({"prediction": "noise"}, "'noise'"),
        ({"sampling": "ode"}, "'ode'"),
        ({"spacing": "even"}, "'even'"),
        ({"clip": 0.0}, "0.0"),
        ({"condition_dropout": 1.0}, "1.0"),
    ],
)
def test_wrong_options_are_quoted(options, quoted):
    with pytest.raises(ValueError, match=quoted):
        Diffusion(**options)


@pytest.mark.parametrize("num_steps", [0, 101])
def test_more_steps_than_levels_are_refused(num_steps):
    with pytest.raises(ValueError, match=f"num_steps={num_steps} must lie between 1 and 100"):
        Diffusion().sampler(num_steps)
