"""Any timm backbone with a spatial pyramid, at any image size; one line for the rest."""

import pytest
import timm
import torch

from cfnseg.config import Model
from cfnseg.data.labels import Label, LabelMap
from cfnseg.errors import UserError
from cfnseg.inference.predictor import Predictor
from cfnseg.models.backbone import fit
from cfnseg.models.build import build_model
from cfnseg.models.encoder import Encoder
from cfnseg.models.trial import try_model
from cfnseg.models.weights import Weights, load, save_weights

LABELS = LabelMap([Label(i, f"class{i}", (i, i, i)) for i in range(3)])
SWIN = "swin_tiny_patch4_window7_224"  # built for 224 x 224, channels last


def settings_of(name: str, **more) -> Model:
    kept = tuple(sorted({s for s in fit(name).reductions if s >= 4}))
    return Model(encoder=name, encoder_weights=None, width=4, strides=kept, grid=(2, 2), **more)


def trained(settings: Model, size=(64, 96)) -> torch.nn.Module:
    """A model after a step on two images, every parameter finite and some of each part moved."""
    torch.manual_seed(0)
    model = build_model(settings, len(LABELS))
    try_model(model, settings, size, 2)
    before = {k: v.clone() for k, v in model.named_parameters()}
    optimizer = torch.optim.SGD(model.train().parameters(), lr=0.1)
    out = model(torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8))
    (out.pixel.square().mean() + out.image.square().mean()).backward()
    optimizer.step()
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert any(
        not torch.equal(p, before[k])
        for k, p in model.named_parameters()
        if k.startswith("encoder.")
    )
    return model.eval()


@pytest.mark.parametrize(
    "name, strides",
    [
        ("test_efficientnet", (4, 8, 16, 32)),
        ("mambaout_femto", (4, 8, 16, 32)),
        ("shvit_s1", (16, 32, 64)),
        ("vit_tiny_patch16_224", (16,)),
        ("legacy_xception", (4, 8, 16, 32)),
    ],
)
def test_trains_and_reloads_and_gives_the_images_size_back(name, strides, tmp_path):
    """Plain, channels last, coarse strides, one stride at a fixed size, unpadded convolutions."""
    settings = settings_of(name)
    assert settings.strides == strides
    model = trained(settings)
    save_weights(tmp_path / "w.safetensors", model, settings, LABELS, {})
    again = load(tmp_path / "w.safetensors")
    image = torch.randint(0, 256, (97, 131, 3), dtype=torch.uint8).numpy()
    one, two = (
        Predictor(Weights(model, settings, LABELS), "cpu")(image),
        Predictor(again, "cpu")(image),
    )
    assert one.mask.shape == two.mask.shape == (97, 131)
    assert (one.confidence == two.confidence).all()


@pytest.mark.parametrize("size", [(32, 32), (97, 131), (224, 224)])
def test_maps_of_a_transformer_are_channels_first_and_cover_the_image(size):
    encoder = Encoder(SWIN, (4, 8, 16, 32)).eval()
    with torch.inference_mode():
        maps = encoder(torch.rand(1, 3, *size))
    padded = [-(-n // 32) * 32 for n in size]
    assert [tuple(m.shape) for m in maps] == [
        (1, c, padded[0] // s, padded[1] // s) for c, s in zip((96, 192, 384, 768), (4, 8, 16, 32))
    ]


def test_a_backbone_whose_windows_must_fill_the_image_sees_more_of_it():
    encoder = Encoder("maxvit_rmlp_pico_rw_256", (4, 32)).eval()
    assert encoder.multiple == 256
    with torch.inference_mode():
        assert [tuple(m.shape[2:]) for m in encoder(torch.rand(1, 3, 97, 131))] == [
            (32, 40),
            (4, 5),
        ]


def test_maps_are_those_of_timm_where_its_size_is_met():
    torch.manual_seed(0)
    encoder = Encoder(SWIN, (4, 8, 16, 32)).eval()
    plain = timm.create_model(SWIN, features_only=True).eval()
    plain.load_state_dict(encoder.body.state_dict())
    images = torch.rand(1, 3, 224, 224)
    with torch.inference_mode():
        theirs = plain((images - encoder.mean) / encoder.std)
        for ours, there in zip(encoder(images), theirs):
            torch.testing.assert_close(ours, there.permute(0, 3, 1, 2))


@pytest.mark.parametrize(
    "name, message",
    [
        ("hiera_tiny_224", "takes images of 224 x 224 only"),
        ("efficientformer_l1", "takes images of 224 x 224 only"),
        ("convmixer_768_32", r"stages at strides \(7, 7, 7\), expected powers of two"),
        ("bat_resnext26ts_", "not the name.*did you mean"),
        ("hf-hub:a/b", "not an address"),
        ("../resnet18", "not the name"),
        ("", "not the name"),
    ],
)
def test_what_cannot_work_is_one_line(name, message):
    with pytest.raises(UserError, match=message) as error:
        build_model(Model(encoder=name, encoder_weights=None), 3)
    assert "\n" not in str(error.value)


def test_a_table_of_positions_that_ends_is_found_before_training():
    settings = settings_of("mvitv2_tiny")
    with pytest.raises(
        UserError, match="does not run with model.encoder mvitv2_tiny on images of any size"
    ):
        try_model(build_model(settings, 3), settings, (64, 64), 2)


def test_the_dry_run_draws_no_random_number():
    """Else the initial weights of a seed would depend on whether the backbone was met before."""
    torch.manual_seed(5)
    state = torch.get_rng_state()
    fit.__wrapped__("test_efficientnet")
    assert torch.equal(torch.get_rng_state(), state)


def test_a_stride_that_is_not_there_names_those_that_are():
    with pytest.raises(
        UserError,
        match=r"no stage at stride 4; it has \[16, 32, 64\]. Set --model.strides 16 32 64",
    ):
        build_model(Model(encoder="shvit_s1", encoder_weights=None), 3)


def test_a_decoder_that_lacks_a_stage():
    with pytest.raises(
        UserError, match="unet: its decoder reads stages at strides 4 8 16 32, and shvit_s1 has"
    ):
        build_model(Model(name="unet", encoder="shvit_s1", encoder_weights=None), 3)


# the smallest of each of timm's families that has weights of less than 40 M parameters
FAMILIES = [
    "halonet_h1",
    "mobileone_s1",
    "coat_lite_tiny",
    "convmixer_768_32",
    "convnext_zepto_rms",
    "cpubone_nano",
    "crossvit_tiny_240",
    "csatv2",
    "cs3darknet_focus_s",
    "cspnext_tiny",
    "davit_tiny",
    "deit_tiny_patch16_224",
    "densenet121",
    "dla46x_c",
    "dpn48b",
    "edgenext_xx_small",
    "efficientformer_l1",
    "efficientformerv2_s0",
    "mobilenetv2_035",
    "efficientvim_m1",
    "efficientvit_b0",
    "efficientvit_m0",
    "fasternet_t0",
    "fastvit_t8",
    "focalnet_tiny_srf",
    "gcvit_xxtiny",
    "ghostnet_050",
    "hardcorenas_b",
    "hgnetv2_b0",
    "hiera_tiny_224",
    "sam2_hiera_tiny",
    "hrnet_w18_small",
    "iformer_t",
    "inception_next_atto",
    "inception_v3",
    "lcnetv2_small",
    "levit_128s",
    "lowformer_b0",
    "mambaout_femto",
    "maxvit_rmlp_pico_rw_256",
    "poolformerv2_s12",
    "gmlp_ti16_224",
    "mobilenetv3_small_050",
    "mobilevit_xxs",
    "mvitv2_tiny",
    "nest_tiny",
    "nextvit_small",
    "nf_regnet_b0",
    "pit_ti_224",
    "pvt_v2_b0",
    "rdnet_tiny",
    "regnetx_002",
    "repghostnet_050",
    "repvit_m1",
    "res2next50",
    "resnest14d",
    "resnet10t",
    "resnetv2_18",
    "rexnet_100",
    "selecsls42",
    "legacy_seresnet18",
    "sequencer2d_s",
    "shvit_s1",
    "skresnet18",
    "starnet_s050",
    "swiftformer_xs",
    "swin_tiny_patch4_window7_224",
    "swinv2_tiny_window8_256",
    "swinv2_cr_tiny_224",
    "tiny_vit_5m_224",
    "tnt_s_legacy_patch16_224",
    "tresnet_m",
    "twins_svt_small",
    "visformer_tiny",
    "vit_tiny_patch16_224",
    "vit_tiny_r_s16_p8_224",
    "vitamin_small_224",
    "ese_vovnet19b_slim_dw",
    "legacy_xception",
    "xception41p",
    "xcit_nano_12_p8_224",
]
LINES = (
    "takes images of",
    "expected powers of two",
    "is not a timm backbone with stages",
    "does not run with model.encoder",
)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_family_trains_or_says_in_one_line_that_it_cannot():
    """Prints what each does; run with -s to see it."""
    outcomes = {}
    for name in FAMILIES:
        if not timm.is_model(name):
            continue  # of another version of timm
        try:
            settings = settings_of(name)
            model = trained(settings)
            image = torch.randint(0, 256, (97, 131, 3), dtype=torch.uint8).numpy()
            assert Predictor(Weights(model, settings, LABELS), "cpu")(image).mask.shape == (97, 131)
            outcomes[name] = "trains"
        except UserError as error:
            outcomes[name] = f"refused: {error}"
            assert any(line in str(error) for line in LINES)
            assert "\n" not in str(error)
        print(f"{name:32} {outcomes[name]}", flush=True)
    count = sum(outcome == "trains" for outcome in outcomes.values())
    print(f"{len(outcomes)} families: {count} train, {len(outcomes) - count} refused")
    assert len(outcomes) >= 40
    assert count >= 0.75 * len(outcomes)
