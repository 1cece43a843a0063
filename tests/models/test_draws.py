import torch

from densessl.models.draws import draw, draw_shared


def test_draws_are_uniform_and_independent_of_the_batch():
    index = torch.arange(400)
    drawn = draw(10, 300, 7, index)
    assert drawn.shape == (400, 300) and drawn.min() == 0 and drawn.max() == 9
    counts = drawn.flatten().bincount()
    assert (counts - 12000).abs().max() < 500  # five standard deviations
    # Neighbours in the list, places in a row and steps know nothing of each other.
    for other in (drawn.roll(1, 0), drawn.roll(1, 1), draw(10, 300, 8, index)):
        assert abs((drawn == other).double().mean() - 0.1) < 0.005
    shuffled = torch.randperm(400)
    assert torch.equal(draw(10, 300, 7, shuffled), drawn[shuffled])
    assert torch.equal(draw(10, 300, 7, index[50:60]), drawn[50:60])


def test_draws_repeat_and_differ_between_steps():
    one, two = (draw_shared(10**6, 50, step, torch.device("cpu")) for step in (3, 4))
    assert torch.equal(one, draw_shared(10**6, 50, 3, torch.device("cpu")))
    assert not torch.equal(one, two) and len(one.unique()) == 50


def test_the_numbers_are_splitmix64s():
    """Against plain integers of Python."""

    def mix(bits):
        bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB % 2**64
        return bits ^ (bits >> 31)

    stride = 0x9E3779B97F4A7C15
    for index, step in ((0, 0), (123456, 999), (5, 70000)):
        start = mix((mix((index + stride) % 2**64) + step) % 2**64)
        expected = [mix((start + k * stride) % 2**64) % 2**63 % 1000 for k in range(1, 9)]
        assert draw(1000, 8, step, torch.tensor([index]))[0].tolist() == expected
