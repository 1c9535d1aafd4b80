"""Scores against their definitions."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.signal import convolve

from nerf.field.fields import Fields, Rendering
from nerf.field.network import Architecture
from nerf.output.scores import compare, evenly, means, psnr, score_views
from nerf.scene.lens import pinhole
from nerf.scene.views import Scene, Views


def test_psnr_is_that_of_the_mean_squared_error():
    torch.manual_seed(0)
    image, truth = torch.rand(12, 15, 3), torch.rand(12, 15, 3)
    mse = float(((image - truth) ** 2).mean())
    assert compare(image, truth)["psnr"] == pytest.approx(-10 * np.log10(mse), rel=1e-5)
    assert psnr(mse) == pytest.approx(-10 * np.log10(mse))


def test_colours_beyond_white_count_as_white():
    truth = torch.ones(12, 12, 3)
    assert compare(truth * 1.3, truth)["ssim"] == pytest.approx(1.0)


def ssim_by_hand(image, truth):
    """Wang et al. 2004: Gaussian window of deviation 1.5 and 11 pixels, K = 0.01 and 0.03; windows in the picture."""
    bell = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window = (np.outer(bell, bell) / bell.sum() ** 2)[:, :, None]
    x, y = (picture.double().numpy() for picture in (image, truth))

    def blur(values):
        return convolve(values, window, mode="valid")

    mx, my = blur(x), blur(y)
    vx, vy, cov = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    return ((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))).mean()


@pytest.mark.parametrize("shape", [(24, 20), (11, 11), (11, 30)])
def test_ssim_is_the_published_formula(shape):
    torch.manual_seed(0)
    truth = torch.rand(*shape, 3)
    image = (truth + 0.2 * torch.randn(*shape, 3)).clamp(0, 1)
    assert compare(image, truth)["ssim"] == pytest.approx(ssim_by_hand(image, truth), abs=1e-5)


def test_a_border_that_both_pictures_share_does_not_raise_their_ssim():
    torch.manual_seed(0)
    truth, image = torch.ones(40, 40, 3), torch.ones(40, 40, 3)
    truth[8:32, 8:32], image[8:32, 8:32] = torch.rand(24, 24, 3), torch.rand(24, 24, 3)
    assert compare(image, truth)["ssim"] == pytest.approx(ssim_by_hand(image, truth), abs=1e-5)


def test_small_pictures_have_no_ssim():
    assert set(compare(torch.rand(8, 30, 3), torch.rand(8, 30, 3))) == {"psnr"}


def test_means_are_over_views_in_decibel():
    views = [{"view": "a", "psnr": 20.0, "ssim": 0.5}, {"view": "b", "psnr": 30.0, "ssim": 0.7}]
    assert means(views) == pytest.approx({"test_psnr": 25.0, "test_ssim": 0.6})
    assert means(views[:1], "val") == {"val_psnr": 20.0, "val_ssim": 0.5}


@pytest.mark.parametrize(("total", "wanted", "found"), [(5, None, [0, 1, 2, 3, 4]), (2, 7, [0, 1]), (9, 2, [0, 4])])
def test_views_are_chosen_evenly(total, wanted, found):
    assert evenly(total, wanted) == found


def test_the_fine_network_alone_is_scored():
    torch.manual_seed(0)
    fields = Fields(Architecture(depth=1, width=4), Rendering(samples_coarse=4, samples_fine=4))
    for network, density in ((fields.coarse, 100.0), (fields.fine, -100.0)):
        torch.nn.init.zeros_(network.density.weight)
        torch.nn.init.constant_(network.density.bias, density)
    pose = torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 4]])[None]
    views = Views(torch.ones(1, 12, 12, 3) * 0.9, pose, pinhole(12, 12, 10.0), ("r_0",))
    scene = Scene("white", views, views, 2.0, 6.0, True, False, pose, torch.tensor([[-1.0] * 3, [1.0] * 3]))
    (found,) = score_views(fields, scene, [0])  # the fine network sees nothing but the white background
    assert found["view"] == "r_0"
    assert found["psnr"] == pytest.approx(20.0, abs=1e-3)
    others = replace(views, images=torch.ones(1, 12, 12, 3) * 0.99, names=("r_7",))
    (found,) = score_views(fields, scene, [0], views=others)
    assert found["view"] == "r_7"
    assert found["psnr"] == pytest.approx(40.0, abs=1e-2)
