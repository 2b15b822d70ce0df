import numpy as np
import pytest
from scipy.spatial import cKDTree

from hepipe.specs.synth import SynthSpec
from hepipe.synth.architecture import GRID_UM, draw_architecture
from hepipe.synth.cells import draw_nuclei, place_cells
from hepipe.synth.plan import plan_case


@pytest.fixture(scope="module")
def drawn():
    plans = {number: plan_case(SynthSpec(side_um=500), number) for number in (1, 4)}
    archs = {number: draw_architecture(plan) for number, plan in plans.items()}
    return {number: (plans[number], archs[number], place_cells(plans[number], archs[number])) for number in plans}


def field_at(field, cells):
    return field[(cells.y * 0.5 / GRID_UM).astype(int), (cells.x * 0.5 / GRID_UM).astype(int)]


def test_nuclei_lie_in_tissue_and_in_no_hole(drawn):
    for _, arch, cells in drawn.values():
        lining = cells.is_kind("endothelium")
        assert (field_at(arch.tissue, cells) > 0).all()
        assert (field_at(arch.hole, cells)[~lining] < 0).mean() > 0.99


def test_tumour_nuclei_keep_their_distance(drawn):
    for _, _, cells in drawn.values():
        tumour = cells.only(cells.is_kind("tumour"))
        points = np.stack([tumour.x, tumour.y], axis=1) * 0.5
        assert cKDTree(points).query(points, k=2)[0][:, 1].min() > 5


def test_a_3_has_larger_more_varied_nuclei_with_more_nucleoli_than_a_0(drawn):
    low, high = (drawn[n][2].only(drawn[n][2].is_kind("tumour")) for n in (1, 4))
    size = [np.sqrt(cells.long * cells.short) for cells in (low, high)]
    assert size[1].mean() > 1.25 * size[0].mean()
    assert size[1].std() / size[1].mean() > 1.4 * size[0].std() / size[0].mean()
    assert (high.nucleolus > 0).mean() > (low.nucleolus > 0).mean() + 0.4


def test_a_nucleus_is_dark_inside_and_leaves_the_rest_alone(drawn):
    plan, _, cells = drawn[4]
    one = cells.only(np.array([0]))
    canvas = draw_nuclei(one, plan.side_px, plan.rng("test"))
    row, column = np.nonzero(canvas)
    area = len(row) * 0.25
    assert area == pytest.approx(np.pi * one.long[0] * one.short[0], rel=0.4)
    assert abs(row.mean() + 0.5 - one.y[0]) < 1.5
    assert abs(column.mean() + 0.5 - one.x[0]) < 1.5


def test_a_nucleus_at_the_corner_of_the_slide_is_cut_off(drawn):
    _, _, cells = drawn[1]
    one = cells.only(np.array([0]))
    moved = type(one)(**{**vars(one), "x": np.array([0.3], np.float32), "y": np.array([59.8], np.float32)})
    canvas = draw_nuclei(moved, 60, np.random.default_rng(0))
    assert canvas[-3:, :3].max() > 0
    assert canvas[:30].max() == 0
