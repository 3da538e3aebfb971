"""Fine-tuning from weights whose classes are others, or stand in another order."""

import pytest
import torch

from cfnseg.config import Model
from cfnseg.data.labels import ClassNames, Label, LabelMap
from cfnseg.models.build import IMAGE_MODELS, MODELS, build_model
from cfnseg.models.weights import match_names, save_weights, start_from
from tests.conftest import ENCODER

NAMES = ["sky", "road", "car", "tree"]


def labels(names, level="pixel"):
    return (
        ClassNames(names)
        if level == "image"
        else LabelMap([Label(i, n, (i, i, i)) for i, n in enumerate(names)])
    )


def started(tmp_path, settings, theirs, own):
    """(the file's model, the fine-tuned model at its start, the same before, the class matches)."""
    torch.manual_seed(0)
    old = build_model(settings, len(theirs))
    for value in old.state_dict().values():
        if value.is_floating_point():
            value.add_(0.05 * torch.rand_like(value))  # nothing of it is at its start
    save_weights(tmp_path / "w.safetensors", old, settings, labels(theirs, settings.level), {})
    model, before = (build_model(settings, len(own)) for _ in range(2))
    before.load_state_dict(model.state_dict())
    start = start_from(model, tmp_path / "w.safetensors", settings, labels(own, settings.level))
    return old.eval(), model.eval(), before.eval(), start


ALL = [
    Model(name=name, encoder=ENCODER, encoder_weights=None, width=4, grid=(2, 2)) for name in MODELS
]
ALL += [
    Model(
        encoder=ENCODER,
        encoder_weights=None,
        width=4,
        grid=(2, 2),
        order="eplf",
        fusion=f,
        fusion_norm="channel",
    )
    for f in ("lc", "adaptive")
]
ALL += [
    Model(level="image", name=name, encoder=ENCODER, encoder_weights=None, width=4)
    for name in IMAGE_MODELS
]


@pytest.mark.parametrize("settings", ALL, ids=lambda s: f"{s.level}-{s.name}-{s.order}-{s.fusion}")
def test_a_permuted_start_gives_permuted_logits(tmp_path, settings):
    own = ["car", "sky", "tree", "road"]
    old, model, _, start = started(tmp_path, settings, NAMES, own)
    order = [NAMES.index(n) for n in own]
    assert start.untouched == []
    assert start.classes == "classes matched by name 4 (car, sky, tree, road)"
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        for training in (False, True):
            for net in (old, model):
                # side outputs exist in training only, where dropout draws from the random state
                net.train(training)
                net.apply(lambda part: part.train(False) if "Norm" in type(part).__name__ else None)
                net.apply(
                    lambda part: (
                        setattr(part, "p", 0.0) if "Dropout" in type(part).__name__ else None
                    )
                )
                net.apply(
                    lambda part: (
                        setattr(part, "drop_prob", 0.0) if hasattr(part, "drop_prob") else None
                    )
                )
            ours, theirs = model(images), old(images)
            pairs = [(ours.image, theirs.image), *zip(ours.side, theirs.side, strict=True)]
            for a, b in pairs if ours.pixel is None else [*pairs, (ours.pixel, theirs.pixel)]:
                assert not torch.equal(b, b[:, order])
                torch.testing.assert_close(a, b[:, order], rtol=1e-4, atol=1e-5)


def test_new_and_dropped_classes(tmp_path):
    settings = ALL[0]
    own = ["Road", "bus", "sky", "SKY", "tram"]
    old, model, before, start = started(tmp_path, settings, NAMES, own)
    assert (
        start.classes
        == "classes matched by name 2 (Road, sky); new 3 (bus, SKY, tram); left out 2 (car, tree)"
    )
    name = "pixel.predictors.0.1.weight"
    old, model, before = (net.state_dict()[name] for net in (old, model, before))
    assert torch.equal(model[[0, 2]], old[[1, 0]])
    assert torch.equal(model[[1, 3, 4]], before[[1, 3, 4]])


def test_the_same_classes_say_nothing(tmp_path):
    assert started(tmp_path, ALL[0], NAMES, NAMES)[3] == ([], "")


def test_no_class_in_common_still_gives_the_rest(tmp_path):
    old, model, before, start = started(tmp_path, ALL[0], NAMES, ["x", "y"])
    assert start.untouched == [
        f"{h}.predictors.0.1.{k}" for h in ("pixel", "image") for k in ("weight", "bias")
    ]
    assert torch.equal(
        model.state_dict()["branches.0.1.weight"], old.state_dict()["branches.0.1.weight"]
    )


def test_a_width_that_happens_to_be_the_number_of_classes(tmp_path):
    """EFLP's fusion has a weight per feature, EPLF's per class: equal shapes mean two things."""
    settings = ALL[0]
    save_weights(tmp_path / "w.safetensors", build_model(settings, 4), settings, labels(NAMES), {})
    eplf = Model(encoder=ENCODER, encoder_weights=None, width=4, grid=(2, 2), order="eplf")
    model = build_model(eplf, 4)
    assert (
        "pixel.fusion.delta"
        in start_from(model, tmp_path / "w.safetensors", eplf, labels(NAMES)).untouched
    )


def test_names_equal_but_for_case_come_second():
    assert match_names(["Car", "car"], ["car", "Car"]) == [(0, 1), (1, 0)]
    assert match_names(["CAR", "car"], ["car"]) == [(1, 0)]
    assert match_names(["a", "a"], ["a", "b", "a"]) == [(0, 0), (1, 2)]
    assert match_names([], ["a"]) == []
