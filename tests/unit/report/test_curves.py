"""Which rows of a history become curves."""

from hepipe.report.curves import _curves
from hepipe.report.gather import RunView


def test_losses_and_validation_become_curves_and_rates_and_gradients_do_not(tmp_path):
    names = ["generator.adversarial", "generator.loss", "generator.gradient", "generator.rate", "generator.skipped"]
    rows = [
        {"step": step, "phase": phase, "name": name, "value": float(step)}
        for step in (2, 4)
        for phase, name in [*(("train", name) for name in names), ("val", "ssim")]
    ]
    page = str(_curves(RunView("r", tmp_path, None, rows)))
    assert [name for name in [*names, "ssim, validation"] if name in page] == [
        "generator.adversarial",
        "generator.loss",
        "ssim, validation",
    ]
