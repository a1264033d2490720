import pytest
import torch

from shortcut_policy.nn.observation_encoder import ObservationEncoder

CNN = {"widths": [8], "keypoints": 2, "feature_dim": 4}
CAMERAS = {"front": (3, 10, 12), "wrist": (3, 10, 12)}


def make(shapes=CAMERAS, **changes):
    torch.manual_seed(0)
    return ObservationEncoder({"b": 1, "a": 2}, 2, shapes, options=CNN, **changes)


def observe(rows=3):
    torch.manual_seed(1)
    images = {key: torch.rand(rows, 2, *shape) for key, shape in CAMERAS.items()}
    return {"a": torch.randn(rows, 2, 2), "b": torch.randn(rows, 2, 1), **images}


def test_observations_are_joined_in_the_order_of_the_dims_step_by_step():
    encoder = ObservationEncoder({"b": 1, "a": 2}, steps=2)
    observation = {"a": torch.tensor([[[1.0, 2.0], [4.0, 5.0]]]), "b": torch.tensor([[[0.0], [3.0]]]), "c": None}
    assert encoder(observation).tolist() == [[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]]
    assert encoder.output_dim == 6
    assert not list(encoder.parameters())


@pytest.mark.parametrize("shared", [False, True])
def test_every_image_goes_through_the_encoder_of_its_camera(shared):
    encoder, observation = make(shared=shared), observe()
    assert encoder.output_dim == 2 * (1 + 2 + 4 + 4)
    assert set(encoder.images) == ({"front"} if shared else {"front", "wrist"})
    expected = []
    for row in range(3):
        for step in range(2):
            expected += [observation["b"][row, step], observation["a"][row, step]]
            for camera in CAMERAS:
                network = encoder.images["front" if shared else camera]
                expected.append(network(observation[camera][row, step][None])[0])
    torch.testing.assert_close(encoder(observation), torch.cat(expected).reshape(3, -1))


@pytest.mark.parametrize("shared", [False, True])
def test_encoders_get_images_as_they_lie_in_memory_channels_last(shared):
    encoder, observation, seen = make(shared=shared), observe(), []
    for network in encoder.images.values():
        network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    stored = {key: observation[key].movedim(-3, -1).contiguous().movedim(-1, -3) for key in CAMERAS}
    torch.testing.assert_close(encoder({**observation, **stored}), encoder(observation))
    as_stored = seen[: len(seen) // 2]
    assert [tuple(images.shape) for images in as_stored] == ([(12, 3, 10, 12)] if shared else 2 * [(6, 3, 10, 12)])
    assert all(images.is_contiguous(memory_format=torch.channels_last) for images in as_stored)


def test_cameras_that_differ_cannot_share_an_encoder():
    with pytest.raises(ValueError, match=r"vision.shared=true needs cameras of one shape, got .*: set it to false"):
        make({"front": (3, 10, 12), "wrist": (3, 8, 8)}, shared=True)
    make({"front": (3, 10, 12), "wrist": (3, 8, 8)})


@pytest.mark.parametrize("name", ["front.rgb", "keys"])
def test_names_that_no_module_can_have_are_refused(name):
    with pytest.raises(ValueError, match=f"observation '{name}' cannot be a key: use a plain name"):
        make({name: (3, 10, 12)})


def test_images_alone_are_enough():
    encoder = ObservationEncoder({}, 1, {"front": (3, 10, 12)}, options=CNN)
    assert encoder({"front": torch.rand(2, 1, 3, 10, 12)}).shape == (2, 4)
