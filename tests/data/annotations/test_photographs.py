"""From names in an export to files: exact, by name, by the folders above, or not at all."""

from cfnseg.data.annotations.photographs import locate, tails


def test_photographs_by_name(tmp_path):
    for name in ("a/x.jpg", "b/y.jpg", "z.jpg", "c/z.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def found(*names, deep=True):
        paths = locate([[name] for name in names], [tmp_path], deep)
        return [path.relative_to(tmp_path).as_posix() for path in paths]

    assert found("a/x.jpg", "q\\y.jpg") == ["a/x.jpg", "b/y.jpg"]
    assert found("q/y.jpg", deep=False) == ["q/y.jpg"]
    assert found("q/y.jpg", "r/y.jpg") == ["q/y.jpg", "r/y.jpg"]  # whose would it be?
    assert found("q/z.jpg") == ["q/z.jpg"]  # which of two?
    assert found("q" * 999) == ["q" * 999]
    assert found("z.jpg", "z.jpg") == ["z.jpg", "z.jpg"]


def test_folders_tell_equal_names_apart(tmp_path):
    for name in ("images/train/x.jpg", "images/val/x.jpg", "images/a/y.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def found(*names):
        paths = locate([[name, *tails(name)] for name in names], [tmp_path], deep=True)
        return [path.relative_to(tmp_path).as_posix() for path in paths]

    assert found("train/x.jpg", "val/x.jpg") == ["images/train/x.jpg", "images/val/x.jpg"]
    assert found("C:\\data\\val\\x.jpg") == ["images/val/x.jpg"]
    assert found("x.jpg") == ["x.jpg"]  # which of two?
    assert found("p/a/y.jpg", "q/a/y.jpg") == ["p/a/y.jpg", "q/a/y.jpg"]  # whose would it be?
    assert found("p/a/y.jpg", "p/b/y.jpg") == ["images/a/y.jpg", "p/b/y.jpg"]
