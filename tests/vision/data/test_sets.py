"""Data sets by name: how they are prepared, in which batches they come, and the facts about the real ones."""

import time

import numpy as np
import pytest
import torch

from harness.errors import UserError
from tests.vision.data.image_files import jpeg, random_images, write_cifar_folder, write_idx_set, write_pack
from vision.data.sets import load_data
from vision.data.splits import Split


def rows_of(split):
    return sorted(split.x.flatten(1).tolist())


def test_an_unknown_data_set_is_an_error_that_lists_the_known_ones():
    with pytest.raises(UserError, match=r"--dataset svhn.*digits, mnist, fashion-mnist, cifar10, drtp-regression"):
        load_data("svhn")


def test_synthetic_is_another_name_of_the_digits_which_need_no_folder(tmp_path):
    digits, synthetic = load_data(), load_data("synthetic", tmp_path / "nowhere")
    assert digits.name == synthetic.name == "digits"
    assert torch.equal(digits.train.x, synthetic.train.x)
    assert (digits.classes, digits.outputs, digits.shape, digits.val) == (10, 10, (1, 8, 8), None)


# Preparation


def test_normalised_training_images_have_mean_0_and_deviation_1_by_channel(root):
    write_cifar_folder(root)
    plain, data = load_data("cifar10", root), load_data("cifar10", root, normalise=True)
    pixels = plain.train.x.numpy().astype(np.float64)
    mean, std = pixels.mean(axis=(0, 2, 3)), pixels.std(axis=(0, 2, 3))
    for split in ("train", "test"):
        raw = getattr(plain, split).x.numpy()
        expected = (raw - mean[:, None, None]) / std[:, None, None]
        np.testing.assert_allclose(getattr(data, split).x.numpy(), expected, atol=1e-5)


def test_vectors_are_normalised_by_feature():
    x = load_data("drtp-classification", normalise=True).train.x.double()
    torch.testing.assert_close(x.mean(dim=0), torch.zeros(256).double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(x.std(dim=0, correction=0), torch.ones(256).double(), atol=1e-4, rtol=0)


def test_a_constant_channel_stays_finite(root):
    write_pack(root / "cifar10" / "train.npz", [jpeg((77, 0, 10)), jpeg((77, 0, 200))], [0, 1])
    write_pack(root / "cifar10" / "test.npz", [jpeg((77, 0, 10))], [0])
    x = load_data("cifar10", root, normalise=True).train.x
    assert x.isfinite().all()
    assert x[:, 1].abs().max() < 1e-5


def test_padding_frames_images_in_black_before_they_are_normalised(root):
    x, *_ = write_idx_set(root / "mnist")  # 6 x 4
    data = load_data("mnist", root, pad_to=9)
    assert data.shape == (1, 9, 9)
    assert data.test.x.shape[1:] == (1, 9, 9)
    torch.testing.assert_close(data.train.x[:, 0, 1:7, 2:6], torch.tensor(x / 255).float())
    assert data.train.x.sum().item() == pytest.approx(x.sum() / 255, rel=1e-5)
    black = load_data("mnist", root, pad_to=9, normalise=True).train.x[0, 0, 0, 0].item()
    assert black == pytest.approx(-x.mean() / x.std(), rel=1e-4)


@pytest.mark.parametrize(("name", "size"), [("digits", 7), ("drtp-regression", 32)])
def test_padding_that_cannot_be_done_is_an_error(name, size):
    with pytest.raises(UserError, match=f"pad_to {size}: the samples of {name} are"):
        load_data(name, pad_to=size)


def test_held_out_rows_leave_the_training_set_and_follow_the_seed():
    whole, data = load_data(), load_data(hold_out=300, seed=1)
    assert (len(data.train), len(data.val), len(data.test)) == (1137, 300, 360)
    both = Split(torch.cat([data.train.x, data.val.x]), torch.cat([data.train.y, data.val.y]))
    assert rows_of(both) == rows_of(whole.train)
    assert torch.equal(load_data(hold_out=300, seed=1).val.x, data.val.x)
    assert not torch.equal(load_data(hold_out=300, seed=2).val.x, data.val.x)
    assert torch.equal(data.test.x, whole.test.x)


def test_rows_are_held_out_of_all_classes_even_if_the_files_are_sorted(root):
    labels = np.repeat(np.arange(10, dtype=np.uint8), 30)
    arrays = [random_images(300, 2, 2)[0], labels, *random_images(3, 2, 2)]
    (root / "mnist").mkdir()
    np.savez(root / "mnist" / "mnist.npz", **dict(zip(("x_train", "y_train", "x_test", "y_test"), arrays, strict=True)))
    data = load_data("mnist", root, hold_out=100)
    assert torch.bincount(data.val.y, minlength=10).min() >= 3
    for split in (data.train, data.val):
        for image, label in zip(split.x[:5], split.y[:5], strict=True):
            row = (arrays[0] == (image[0] * 255).round().numpy()).all(axis=(1, 2))
            assert labels[row].tolist() == [label.item()]


def test_holding_out_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    load_data(hold_out=10)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("hold_out", [-1, 1437])
def test_holding_out_nothing_or_everything_that_there_is_is_an_error(hold_out):
    with pytest.raises(UserError, match=f"--hold-out {hold_out}: of 1437 training samples, 0 to 1436"):
        load_data(hold_out=hold_out)


# Batches


@pytest.fixture
def split():
    """Image i has the pixels i, i + 1/4, i + 1/2 in its one row."""
    x = torch.arange(11.0)[:, None, None, None] + torch.tensor([0, 0.25, 0.5]).view(1, 1, 1, 3)
    return Split(x, torch.arange(11))


def test_batches_hold_every_sample_once_with_its_target(split):
    torch.manual_seed(0)
    parts = list(split.batches(4))
    assert [len(y) for _, y in parts] == [4, 4, 3]
    y = torch.cat([y for _, y in parts])
    assert sorted(y.tolist()) == list(range(11))
    assert y.tolist() != list(range(11))
    assert torch.equal(torch.cat([x for x, _ in parts]), split.x[y])
    assert all(x.is_contiguous() for x, _ in parts)


def test_without_shuffling_batches_are_views_in_order(split):
    parts = list(split.batches(4, shuffle=False))
    assert torch.cat([y for _, y in parts]).tolist() == list(range(11))
    assert parts[1][0].data_ptr() == split.x[4:].data_ptr()


def test_the_last_batch_is_left_out_if_it_is_smaller(split):
    assert [len(y) for _, y in split.batches(4, drop_last=True)] == [4, 4]
    assert [len(y) for _, y in split.batches(11, drop_last=True)] == [11]
    with pytest.raises(UserError, match="--batch 12 leaves no whole batch of 11 samples"):
        list(split.batches(12, drop_last=True))


def test_the_order_follows_the_global_generator(split):
    def order():
        return torch.cat([y for _, y in split.batches(4)]).tolist()

    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, second = order(), order()
    assert first != second
    torch.set_rng_state(state)
    assert [order(), order()] == [first, second]


def test_flipping_mirrors_half_of_the_images_left_to_right():
    x = torch.arange(24.0).reshape(1, 2, 3, 4).repeat(2000, 1, 1, 1)
    torch.manual_seed(0)
    found = torch.cat([x for x, _ in Split(x, torch.zeros(2000)).batches(300, flip=True)])
    mirrored = x[0].numpy()[:, :, ::-1]
    same = [np.array_equal(image, x[0]) for image in found.numpy()]
    other = [np.array_equal(image, mirrored) for image in found.numpy()]
    assert all(a != b for a, b in zip(same, other, strict=True))
    assert 900 < sum(other) < 1100


def test_vectors_cannot_be_mirrored():
    with pytest.raises(UserError, match="flip mirrors images"):
        next(Split(torch.zeros(3, 5), torch.zeros(3)).batches(2, flip=True))


def test_data_and_splits_move_as_a_whole():
    data = load_data(hold_out=10).to("meta")
    assert {part.device.type for s in (data.train, data.val, data.test) for part in (s.x, s.y)} == {"meta"}
    assert load_data().to("cpu").val is None


# The real images

MNIST_TRAIN = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


@pytest.mark.data
def test_mnist_is_the_published_set(data_dir):
    data = load_data("mnist", data_dir)
    assert (data.shape, len(data.test), data.classes) == ((1, 28, 28), 10_000, 10)
    assert torch.bincount(data.train.y).tolist() == MNIST_TRAIN
    assert data.train.y[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert data.test.y[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert (data.train.x.min().item(), data.train.x.max().item()) == (0.0, 1.0)
    assert data.train.x.double().mean().item() == pytest.approx(0.1307, abs=5e-5)
    assert data.train.x.double().std().item() == pytest.approx(0.3081, abs=5e-5)


@pytest.mark.data
def test_an_epoch_of_bare_batches_of_mnist_takes_no_time(data_dir):
    data, best = load_data("mnist", data_dir), 9.0
    for _ in range(3):
        start = time.process_time()
        for _ in data.train.batches(100):
            pass
        best = min(best, time.process_time() - start)
    assert best < 0.25


@pytest.mark.data
def test_cifar10_is_the_packed_set(data_dir, real_cache):
    data = load_data("cifar10", data_dir)
    assert (data.shape, data.classes) == ((3, 32, 32), 10)
    assert torch.bincount(data.train.y).tolist() == [5000] * 10
    assert torch.bincount(data.test.y).tolist() == [1000] * 10
    assert data.train.x.mean(dim=(0, 2, 3)).tolist() == pytest.approx([0.4913, 0.4821, 0.4465], abs=1e-4)
    assert data.train.x.flatten(2).std(dim=(0, 2)).tolist() == pytest.approx([0.2452, 0.2428, 0.2606], abs=1e-4)
    assert len(list((real_cache / "vision").iterdir())) == 2


@pytest.mark.data
def test_the_data_root_is_left_as_it_was(data_dir):
    before = sorted(str(path) for name in ("mnist", "cifar10") for path in (data_dir / name).rglob("*"))
    load_data("mnist", data_dir, normalise=True, pad_to=32, hold_out=5000)
    assert sorted(str(path) for name in ("mnist", "cifar10") for path in (data_dir / name).rglob("*")) == before


def test_samples_drawn_of_a_sorted_set_are_of_several_classes_and_move_no_global_generator():
    split = Split(torch.arange(100.0)[:, None], torch.arange(100) // 10)
    before = torch.get_rng_state()
    some = split.drawn(30, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    assert len(some.y.unique()) > 5
    assert torch.equal(some.x[:, 0].long() // 10, some.y)
    assert torch.equal(some.x, split.drawn(30, seed=0).x)
    assert not torch.equal(some.x, split.drawn(30, seed=1).x)
