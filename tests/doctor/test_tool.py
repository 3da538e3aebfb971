"""The command as a person runs it, and real data."""

import re
import shlex

from tests.conftest import run_tool
from tests.doctor import planted as p
from tests.doctor.test_faults import examine


def test_the_proposed_command_works(tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    p.make(root)
    p.change([p.mask(root)], p.colours)
    call = (
        "python tools/doctor.py configs/shapes_cfn.py --data.name folder "
        f"--data.root {root} --out {tmp_path / 'out'}"
    )
    finding = examine(root, tmp_path / "first", command=call)["findings"][0]
    done = run_tool(*shlex.split(finding["fix"][0])[1:])
    assert done.returncode == 1, done.stderr
    assert "\x1b" not in done.stdout
    assert f"--data.root {root}_fixed" in done.stdout
    assert examine(f"{root}_fixed", tmp_path / "second")["counts"]["error"] == 0
    page = (tmp_path / "out" / "doctor.html").read_text()
    assert "default-src 'none'" in page
    assert not re.search(r'(?:src|href)="(?!data:)', page)


def test_usage_mistakes():
    for options, message in (([], "which config?"), (["none.py"], "no config file")):
        done = run_tool("tools/doctor.py", *options)
        assert done.returncode == 2, done.stderr
        assert (
            done.stderr.startswith("error:")
            and message in done.stderr
            and "Traceback" not in done.stderr
        )


def test_camvid_is_clean_and_a_video(real_data, tmp_path):
    report = examine(real_data / "camvid", tmp_path, name="camvid")
    assert report["counts"]["error"] == report["counts"]["warning"] == 0
    assert [s["pairs"] for s in report["splits"]] == [367, 101]
    assert report["place"]["proposal"] == [6, 1] and report["mirrored"] == []
    assert sum(f["kind"].startswith("near-duplicate") for f in report["findings"]) <= 2
    assert "frames of a video" in next(
        f["text"] for f in report["findings"] if f["kind"] == "near-duplicate-within"
    )


def test_voc_sample_lacks_two_classes_and_nothing_else(real_data, tmp_path):
    """The thirty training images of the sample have no potted plant and no sheep."""
    report = examine(real_data / "voc_sample", tmp_path, name="voc")
    errors = [
        (f["kind"], f["text"].split(":")[0]) for f in report["findings"] if f["severity"] == "error"
    ]
    assert errors == [("class-absent", "pottedplant, sheep")]


def test_the_old_name_of_fix_works(tmp_path):
    (tmp_path / "data").mkdir()
    p.make(tmp_path / "data", train=2, val=1)
    copy = tmp_path / "copy"
    done = run_tool(
        "tools/doctor.py",
        "configs/shapes_cfn.py",
        "--data.name",
        "folder",
        "--data.root",
        tmp_path / "data",
        "--out",
        tmp_path / "out",
        f"--mend={copy}",
    )
    assert done.stderr.count("--mend is now --fix") == 1
    assert (copy / "classes.txt").is_file()
