#!/usr/bin/env bash
# torchmetrics' SSIM counts windows that reach over the border of a picture; scikit-image's, like the paper's, does not.
#
# Versions: torchmetrics 1.9.0, scikit-image 0.26.0, torch 2.13.0 (CPU), numpy 2.4.6, Python 3.11.
# Behaviour: with the settings of Wang et al. 2004 (Gaussian window of deviation 1.5 and 11 pixels), both should give the
#   mean over windows that lie in the picture. scikit-image leaves out a border of 5 pixels before it takes the mean.
#   torchmetrics fills windows at the border by reflection and counts them. For an object before a plain background, where
#   the border is the same in both pictures, it reports a higher similarity: 0.87 in place of 0.78 at 40 x 40 pixels.
#   Cut to the same windows (`return_full_image=True`) both agree to five digits.
# Source: torchmetrics/functional/image/ssim.py, `_ssim_update`: F.pad(mode="reflect"), and a mean over all places, while
#   its contrast term is cut by the padding; skimage/metrics/_structural_similarity.py: crop(S, pad).mean().
# Output seen:
#   scikit-image 0.7808, torchmetrics 0.8700, torchmetrics without the border 0.7808
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m pip install --quiet --disable-pip-version-check --target "$folder" \
  torch==2.13.0 torchmetrics==1.9.0 scikit-image==0.26.0 numpy==2.4.6
PYTHONPATH="$folder" python3 - <<'PY'
import numpy as np
import torch
from skimage.metrics import structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure

rng = np.random.default_rng(0)
truth = np.ones((40, 40, 3))
truth[8:32, 8:32] = rng.random((24, 24, 3))  # an object before white
guess = truth.copy()
guess[8:32, 8:32] = 0.5 * truth[8:32, 8:32] + 0.5 * rng.random((24, 24, 3))

settings = dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=1.0, channel_axis=2)
published = structural_similarity(guess, truth, **settings)
pictures = [torch.from_numpy(picture).movedim(-1, 0)[None] for picture in (guess, truth)]
mean, places = structural_similarity_index_measure(*pictures, data_range=1.0, return_full_image=True)
inner = places[..., 5:-5, 5:-5].mean().item()
print(f"scikit-image {published:.4f}, torchmetrics {mean.item():.4f}, torchmetrics without the border {inner:.4f}")
assert abs(inner - published) < 1e-5
assert mean.item() > published + 0.05, "torchmetrics leaves the border out now"
PY
