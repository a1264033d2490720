"""The images of a data set seen once by a frozen model, whose features then stand in for them in training."""

from dataclasses import replace

import numpy as np
import torch
from tqdm import tqdm

from shortcut_policy.data.episodes import Episodes
from shortcut_policy.image_views import view
from shortcut_policy.policy import Policy


@torch.no_grad()
def with_features(policy: Policy, episodes: Episodes, batch_size: int = 64, progress: bool = False) -> Episodes:
    """The same episodes, with the features (N, M) float32 of the policy's frozen encoder in place of images.

    Args:
        policy: with `vision.cache_features`, on the device where the features are computed.
        episodes: with images in RAM.
        batch_size: images at a time.
        progress: whether a bar shows how far it is.

    Raises:
        ValueError: the policy's encoder learns.
    """
    vision = policy.config.vision
    if vision is None or not vision.cache_features:
        raise ValueError("features are those of a policy with vision.cache_features=true")
    features = {}
    for camera in policy.config.image_shapes:
        encoder = policy.network.encoder.encoder_of(camera)
        images = episodes.observations[camera]
        parts = []
        for first in tqdm(range(0, len(images), batch_size), desc=f"features of {camera}", disable=not progress):
            some = torch.from_numpy(images[first : first + batch_size]).to(policy.device)
            parts.append(encoder.features(view(some[:, None], vision)[:, 0]).float().cpu().numpy())
        features[camera] = np.concatenate(parts)
    return replace(episodes, observations={**episodes.observations, **features})
