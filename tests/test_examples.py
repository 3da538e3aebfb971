"""The examples in the docstrings of the public API run; one tiny training serves all."""

import contextlib
import doctest
import inspect
import io

import pytest
from PIL import Image

import cfnseg
from cfnseg.data.formats import shapes

SECTIONS = {
    "Model",
    "Data",
    "Optim",
    "Loss",
    "Train",
}  # their help is what --help prints; Config's example has them


class Outputs(doctest.OutputChecker):
    """What an example does not show it may print, such as progress."""

    def check_output(self, want, got, optionflags):
        return not want or super().check_output(want, got, optionflags)


def run(name):
    """The number of lines of the example of a public object, run. Fails with the difference."""
    found = getattr(cfnseg, name)
    text = inspect.getdoc(found)
    assert "Example:" in text, f"cfnseg.{name} has no Example:"
    test = doctest.DocTestParser().get_doctest(text.partition("Example:")[2], {}, name, None, 0)
    report = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()):
        result = doctest.DocTestRunner(Outputs(), verbose=False).run(test, out=report.write)
    assert not result.failed, report.getvalue()
    return result.attempted


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with photo.jpg and, by the example of `cfnseg.train`, runs/example."""
    folder = tmp_path_factory.mktemp("examples")
    Image.fromarray(shapes.render(7)[0]).save(folder / "photo.jpg")
    with contextlib.chdir(folder):
        assert run("train") > 3
    return folder


@pytest.mark.parametrize(
    "name",
    [name for name in sorted({*cfnseg.__all__} - SECTIONS - {"train"})],
)
def test_the_example_of(name, trained, monkeypatch):
    monkeypatch.chdir(trained)
    assert run(name) > 1


def test_the_example_of_config_has_every_section():
    assert all(f"{section}(" in cfnseg.Config.__doc__ for section in SECTIONS)


def test_the_names():
    assert list(cfnseg.__all__) == sorted(cfnseg.__all__) and set(cfnseg.__all__) <= set(
        dir(cfnseg)
    )
    for name in cfnseg.__all__:
        assert getattr(cfnseg, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        cfnseg.trian  # noqa: B018


def test_editors_see_what_is_imported_lazily():
    """The imports under TYPE_CHECKING name the same objects as the lazy table."""
    import ast

    tree = ast.parse(inspect.getsource(cfnseg))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {node.module: tuple(alias.name for alias in node.names) for node in block.body}
    assert seen == cfnseg._MODULES
    assert sorted(sum(seen.values(), ())) == sorted(cfnseg.__all__)


def test_a_region_is_a_crops_place():
    whole = cfnseg.region_of((0, 0, 320, 240), (240, 320))
    assert whole.tolist() == [0, 0, 1, 1] and whole.shape == (4,)
    assert cfnseg.region_of((-32, 0, 288, 120), (240, 320)).tolist() == pytest.approx(
        [-0.1, 0, 0.9, 0.5]
    )
