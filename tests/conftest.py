from pathlib import Path

import pytest


def pytest_configure(config: pytest.Config) -> None:
    # Not in the settings file: pytest would import hepipe to find the class, before jaxtyping can hook in its checks.
    config.addinivalue_line("filterwarnings", "error::hepipe.errors.HepipeWarning")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden-dir", metavar="DIR", help="folder of the golden values' index.csv; default ../shared/golden"
    )
    parser.addoption(
        "--data-dir", metavar="DIR", help="folder of the real pictures, for tests marked real; default ../shared/data"
    )


@pytest.fixture(scope="session")
def data_dir(request: pytest.FixtureRequest) -> Path:
    """The folder of the real pictures; a test that asks for it is skipped without one."""
    given = request.config.getoption("--data-dir")
    folder = Path(given or request.config.rootpath.parent / "shared" / "data")
    if not folder.is_dir():
        if given:
            raise pytest.UsageError(f"--data-dir {folder}: no such folder")
        pytest.skip("no real pictures; give their folder as --data-dir")
    return folder
