"""Random numbers of a tile."""

import torch

from hepipe.models.draws import draw_normal, draw_whole, shared_generator, tile_generators
from hepipe.models.method import Progress

AT = Progress(3, 10, 5, seed=11)


def test_a_tile_draws_the_same_alone_and_in_any_batch():
    both = draw_normal(tile_generators(["a", "b"], AT, use="noise"), like=torch.zeros(2, 3, 4, 4))
    alone = draw_normal(tile_generators(["b"], AT, use="noise"), like=torch.zeros(1, 3, 4, 4))
    assert torch.equal(alone[0], both[1])
    assert not torch.equal(both[0], both[1])


def test_another_iteration_or_use_draws_other_numbers():
    like = torch.zeros(1, 64)
    first = draw_normal(tile_generators(["a"], AT, use="noise"), like=like)
    later = draw_normal(tile_generators(["a"], Progress(4, 10, 5, seed=12), use="noise"), like=like)
    other = draw_normal(tile_generators(["a"], AT, use="mask"), like=like)
    assert not torch.equal(first, later)
    assert not torch.equal(first, other)


def test_whole_numbers_stay_below_their_bound_and_fill_it():
    drawn = draw_whole(
        tile_generators([str(i) for i in range(400)], AT, use="time"), below=5, device=torch.device("cpu")
    )
    assert sorted(set(drawn.tolist())) == [0, 1, 2, 3, 4]


def test_what_tiles_share_depends_on_the_iteration_alone():
    first, again = (torch.rand(8, generator=shared_generator(AT, use="places")) for _ in range(2))
    assert torch.equal(first, again)
