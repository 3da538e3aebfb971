"""Many visitors at once: nobody gets another's answer, and Ctrl-C ends the demo."""

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from tests.demo.serving import tiny_weights
from tests.demo.visitors import running, visit


@pytest.mark.parametrize(
    "visitors, seconds", [(6, 2), pytest.param(50, 120, marks=pytest.mark.slow)]
)
def test_every_answer_is_that_of_its_image(tmp_path, visitors, seconds):
    weights = tiny_weights(tmp_path / "tiny.safetensors")
    with running(weights) as port:
        seen = visit(port, weights, visitors, seconds)
    assert seen.wrong == [] and len(seen.seconds) >= visitors
