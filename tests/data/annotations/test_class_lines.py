"""Ids and colours of the classes: an export's own, or those of a file."""

import pytest

from cfnseg.data.annotations.class_lines import chosen_classes, own_classes
from cfnseg.data.annotations.regions import Annotations
from cfnseg.data.labels import IGNORE, read_classes
from cfnseg.errors import UserError


def test_own_names_become_words_with_distinct_colors(tmp_path):
    colors = {"traffic light": (128, 0, 0), "car": (128, 0, 0)}
    found = own_classes(Annotations(["traffic light", "car", "void"], [], colors=colors))
    assert found.labels.names == ["background", "traffic_light", "car"]
    assert found.ids == {"background": 0, "traffic light": 1, "car": 2, "void": IGNORE}
    assert found.background == 0
    shown = [label.color for label in found.labels.labels]
    assert shown[1] == (128, 0, 0) and len(set(shown)) == 3
    (tmp_path / "classes.txt").write_text(found.text())
    assert read_classes(tmp_path / "classes.txt") == found.labels


def test_the_background_is_a_class_of_the_export_or_none():
    found = own_classes(Annotations(["road", "_background_"], [], "_background_"))
    assert found.labels.names == ["background", "road"] and found.ids["_background_"] == 0
    found = own_classes(Annotations(["road"], [], None))
    assert found.labels.names == ["road"] and found.background == IGNORE


def test_too_many_classes_and_equal_words():
    names = [f"c{i}" for i in range(255)]
    with pytest.raises(UserError, match="256 classes, a mask has room for 255"):
        own_classes(Annotations(names, []))
    assert len(own_classes(Annotations(names, [], None)).labels) == 255
    with pytest.raises(UserError, match="'a b' and 'a_b' are both a_b"):
        own_classes(Annotations(["a b", "a_b"], []))


def test_lines_merge_and_ignore(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text(
        "0 rest 0 0 0 = background, tree  # a comment\n"
        "7 traffic_light 1 2 3 = lamp\n9 void 0 0 0 = sky\n"
    )
    export = Annotations(["traffic light", "lamp", "tree", "sky"], [])
    found = chosen_classes(path, export)
    assert found.labels.names == ["rest", "traffic_light"] and found.background == 0
    expected = {"background": 0, "traffic light": 7, "lamp": 7, "tree": 0, "sky": IGNORE}
    assert found.ids == expected
    with pytest.raises(UserError, match="no line names 1 of the export's classes: car"):
        chosen_classes(path, Annotations(["car", "sky"], []))
    path.write_text("0 a 0 0 0 = x\n1 b 1 1 1 = x\n")
    with pytest.raises(UserError, match="line 2: x is named by another line too"):
        chosen_classes(path, Annotations(["x"], [], None))
    path.write_text("0 a 0 0 = x\n")
    with pytest.raises(UserError, match="line 1: expected `id name r g b`"):
        chosen_classes(path, Annotations(["x"], [], None))
