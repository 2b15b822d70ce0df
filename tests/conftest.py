import pytest


def pytest_configure(config: pytest.Config) -> None:
    # Not in the settings file: pytest would import hepipe to find the class, before jaxtyping can hook in its checks.
    config.addinivalue_line("filterwarnings", "error::hepipe.errors.HepipeWarning")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden-dir", metavar="DIR", help="folder of the golden values' index.csv; default ../shared/golden"
    )
