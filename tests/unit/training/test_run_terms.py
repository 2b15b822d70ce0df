from hepipe.dataset.terms import Terms, told_terms
from hepipe.models.finished import read_finished_provenance
from hepipe.models.resolved import resolve_run
from hepipe.specs.training import RunSpec, TrainingSpec
from hepipe.stores.tables import read_provenance
from hepipe.training.train import inherited_terms, train_run

BCI = Terms(source_set="bci", line="non-commercial", texts={"README": "cite"})
MIST = Terms(source_set="mist", line="not found")


def test_the_terms_of_a_data_set_stay_with_weights_and_pass_on_to_runs_that_build_on_them(make_index, tmp_path):
    training = TrainingSpec(n_steps=2, batch_size=2, crop_px=8, workers=0, threads=1)
    folder = tmp_path / "r"
    train_run(
        resolve_run("r", RunSpec(model="pixel_map", preset="tiny", dataset="set", training=training)),
        make_index({"train": 4, "val": 2}),
        fingerprint="f",
        part_folders={},
        model=folder / "model.safetensors",
        history=folder / "history.parquet",
        terms=(BCI,),
    )
    assert told_terms(read_finished_provenance(folder / "model.safetensors").told) == (BCI,)
    assert told_terms(read_provenance(folder / "history.parquet").told) == (BCI,)
    assert inherited_terms((MIST, BCI), [folder]) == (BCI, MIST)
