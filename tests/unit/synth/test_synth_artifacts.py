import numpy as np
import pytest

from hepipe.specs.synth import SynthSpec
from hepipe.synth import artifacts as marks
from hepipe.synth.noise import blobs, generator
from hepipe.synth.plan import KINDS, LABELS, Planted, plan_case
from hepipe.synth.scanner import scan

LOOK = plan_case(SynthSpec(), 1).he


def soiled(kind, severity):
    """A textured disc of tissue before and after an artifact, and where it is."""
    y, x = np.mgrid[0:400, 0:400]
    tissue = (np.hypot(x - 200, y - 200) < 150).astype(np.float32)
    texture = tissue * (0.4 + 0.25 * np.abs(blobs(generator(1), (400, 400), 1.5)))
    placed = marks.place(Planted(kind, severity, "he"), tissue, generator(2))

    def scanned(amounts, change):
        od = amounts[..., None] * np.array([0.5, 0.8, 0.3], np.float32)
        if change:
            od = marks.change_density(od, placed, generator(3))
        return scan(np.ascontiguousarray(od, np.float32), LOOK, generator(4))

    clean = scanned(texture, False)
    substance = {"cytoplasm": texture.copy()}
    marks.change_substance(substance, placed)
    dirty = marks.change_picture(scanned(substance["cytoplasm"], True), placed, LOOK)
    return np.abs(dirty.astype(int) - clean).mean(axis=2), placed


@pytest.mark.parametrize("kind", KINDS)
def test_an_artifact_changes_its_own_place_and_little_else(kind):
    change, placed = soiled(kind, 0.9)
    assert placed.mask.any()
    inside, outside = change[placed.mask].mean(), change[placed.cover == 0].mean()
    assert inside > 4
    assert outside < 0.1 * inside


@pytest.mark.parametrize("kind", KINDS)
def test_a_worse_artifact_changes_more(kind):
    total = [soiled(kind, severity)[0].sum() for severity in (0.05, 0.5, 1.0)]
    assert total[0] < total[1] < total[2]


@pytest.mark.parametrize("kind", ["pen", "blur", "shade", "fold"])
def test_the_least_severity_is_barely_visible(kind):
    change, placed = soiled(kind, 0.05)
    assert 0.3 < change[placed.mask].mean() < 28


def test_the_mask_holds_the_label_of_the_kind_at_4_um():
    _, placed = soiled("pen", 0.5)
    labels = marks.mask_of([placed], (400, 400))
    assert labels.shape == (50, 50)
    assert set(np.unique(labels)) == {0, LABELS["pen"]}
    area = marks.records([placed], labels)[0]["area_um2"]
    assert area == pytest.approx(placed.mask.sum() * 0.25, rel=0.2)


def test_artifacts_of_one_slide_keep_off_each_other():
    tissue = np.ones((600, 600), np.float32)
    placed = []
    for number, kind in enumerate(("blur", "bubble", "shade")):
        placed.append(marks.place(Planted(kind, 0.3, "he"), tissue, generator(number), placed))
    together = sum(one.mask.astype(int) for one in placed)
    assert (together > 1).sum() < 0.1 * (together > 0).sum()
