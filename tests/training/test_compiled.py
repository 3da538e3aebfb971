"""Training with train.compile: one graph, and the weights of eager training."""

import functools
import shutil
from dataclasses import replace

import pytest
import torch

from cfnseg.training.run import Run

COMPILER = pytest.mark.skipif(
    not shutil.which("g++"),
    reason="torch.compile on a CPU needs a C++ compiler, and there is no g++",
)


@pytest.mark.parametrize(
    "backend",
    [
        "aot_eager",
        pytest.param("inductor", marks=[pytest.mark.slow, COMPILER, pytest.mark.timeout(900)]),
    ],
)
def test_compiled_training_ends_in_the_weights_of_eager_training(
    tiny, tmp_path, monkeypatch, backend
):
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    weights = []
    for compiled in (False, True):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        config = replace(  # no dropout: a compiler draws other numbers
            tiny,
            name=f"compiled_{compiled}",
            model=replace(tiny.model, dropout=0.0),
            optim=replace(tiny.optim, name="sgd", lr=0.01),
            train=replace(tiny.train, compile=compiled, max_steps=4, pictures=0),
        )
        run = Run(config)
        run.train()
        weights.append(
            {k: v.clone() for k, v in run.network.state_dict().items() if v.is_floating_point()}
        )
        counters = torch._dynamo.utils.counters
        assert counters["stats"]["unique_graphs"] == compiled and not counters["graph_break"]
    for key, expected in weights[0].items():
        torch.testing.assert_close(
            weights[1][key],
            expected,
            rtol=1e-4,
            atol=1e-5,
            msg=lambda text, key=key: f"{key}: {text}",
        )
