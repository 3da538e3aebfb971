"""The weights that the demo serves."""

import pytest

from tests.demo.serving import tiny_weights


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    return tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")
