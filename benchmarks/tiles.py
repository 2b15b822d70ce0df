"""The bars of tiles, measured: readers, codecs and whole slides against the programs that one could use instead.

    python benchmarks/tiles.py --data FOLDER --slides FOLDER [--only PART …] [--record ROWS.json]
        [--rival NAME=PYTHON …]     hs2p, vips: interpreters made by rivals/make_env.sh

FOLDER of --data holds the public slides; that of --slides the big ones made of their tissue, which are made there once
(`tilebars/mosaic.py`, about 1 GB, minutes): a mosaic of 40,960 x 40,960 px and a nearly empty canvas of 100,000 x
200,000 px, each as H&E and as IHC.

Each program is a process of its own on one thread, ours and the rival's in turn; CPU seconds hold its start and its
children's, the peak is the resident memory of its largest process. What compares single functions takes the least of
several rounds in one process. A rival that does not run is a row that says why; gains by a second thread are not
measured while other processes keep the machine busy.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bars.table import Table
from tilebars import codecs, cutting, loading, mosaic, reading, scale, sparse, stains, warping
from tilebars.rivals import Rival, rivals_of

from hepipe.errors import SlideError
from hepipe.slides.open import closing, open_slide
from hepipe.specs.tiling import StoreSpec, TilingSpec


@dataclass(frozen=True)
class Place:
    """Where everything is.

    Attributes:
        data: The public slides.
        slides: The big ones.
        work: For what is made and removed again.
        rivals: By name.
    """

    data: Path
    slides: Path
    work: Path
    rivals: dict[str, Rival]

    def slide(self, kind: str, stain: str) -> Path:
        """A big slide, made when it is not there yet."""
        path = self.slides / f"{kind}-{stain}.tif"
        if not path.exists():
            print(f"making {path.name}", flush=True)
            size = (100_000, 200_000) if kind == "sparse" else (40_960, 40_960)
            share = 0.005 if kind == "sparse" else 0.38
            mosaic.make(path, self.data, size=size, stain=stain, tissue=share, sparse=kind == "sparse")
        return path


def measure_reading(table: Table, place: Place) -> None:
    reading.measure(table, [place.slide("mosaic", "he"), place.slide("mosaic", "ihc"), *decoded_here(place.data)])


def decoded_here(data: Path) -> list[Path]:
    """The public slides that the direct reader takes."""
    found = []
    for path in sorted(one for kind in ("svs", "tif", "ndpi") for one in data.rglob(f"*.{kind}")):
        with contextlib.suppress(SlideError):
            slide = open_slide(path, slide_id="bar-he", reader="direct", mpp=0.5)
            with closing(slide):
                found.append(path)
    return found


def measure_codecs(table: Table, place: Place) -> None:
    codecs.measure(table, place.data, place.work / "codecs")


def measure_cut(table: Table, place: Place) -> None:
    cutting.measure(table, place.slide("mosaic", "he"), place.rivals["hs2p"], place.work)


def measure_warp(table: Table, place: Place) -> None:
    he, ihc = (place.slide("mosaic", stain) for stain in ("he", "ihc"))
    warping.measure(table, he, ihc, place.rivals["vips"], place.work)


def measure_stains(table: Table, place: Place) -> None:
    stains.measure(table, place.data / mosaic.SOURCES["ihc"])


def measure_threads(table: Table, place: Place) -> None:
    for codec in ("jpeg", "greendelta"):
        cutting.measure_threads(table, place.slide("mosaic", "he"), place.work, codec=codec)


def measure_sparse(table: Table, place: Place) -> None:
    sparse.measure(table, *(place.slide("sparse", stain) for stain in ("he", "ihc")), place.work)


def measure_scale(table: Table, place: Place) -> None:
    he, ihc = (place.slide("mosaic", stain) for stain in ("he", "ihc"))
    warping.write_transform(place.work / "scale.npz", (40_960, 40_960))
    scale.measure(table, he, ihc, place.work / "scale.npz", place.slide("sparse", "he"))


def measure_loading(table: Table, place: Place) -> None:
    loading.measure(table, place.slide("mosaic", "he"), place.slide("mosaic", "ihc"), place.work)


PARTS: dict[str, Callable[[Table, Place], None]] = {
    "reading": measure_reading,
    "cut": measure_cut,
    "warp": measure_warp,
    "stains": measure_stains,
    "codecs": measure_codecs,
    "threads": measure_threads,
    "sparse": measure_sparse,
    "scale": measure_scale,
    "loading": measure_loading,
}


def options() -> argparse.Namespace:
    """The command line."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--data", type=Path, required=True, metavar="FOLDER")
    words.add_argument("--slides", type=Path, required=True, metavar="FOLDER")
    words.add_argument("--only", nargs="*", choices=tuple(PARTS), default=tuple(PARTS), metavar="PART")
    words.add_argument("--rival", nargs="*", default=[], metavar="NAME=PYTHON")
    words.add_argument("--record", type=Path, help="rows as JSON")
    words.add_argument("--work", type=Path, metavar="FOLDER", help="where stores are written; a temporary folder")
    return words.parse_args()


@contextlib.contextmanager
def workplace(given: Path | None) -> Iterator[Path]:
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="hepipe-bars-") as folder:
        yield Path(folder)


def main() -> None:
    """Read the command line."""
    given = options()
    given.slides.mkdir(parents=True, exist_ok=True)
    rivals = rivals_of(given.rival)
    about = f"{StoreSpec().codec} by default"
    with workplace(given.work) as work:
        place = Place(given.data, given.slides, work, rivals)
        table = Table("tiles", TilingSpec(mpp=0.25, tile_px=1024, min_tissue_frac=0.5), about, given.record)
        for name in given.only:
            PARTS[name](table, place)


if __name__ == "__main__":
    main()
