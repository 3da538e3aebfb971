"""log.jsonl after a crash, and after somebody's edit."""

import json

import pytest

from cfnseg.errors import UserError
from cfnseg.training.log import RunLog, read_log

ROWS = [{"step": 10, "loss": 1.0}, {"step": 14, "val_loss": 0.5, "val_miou": None}]
TEXT = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
GARBAGE = [
    b"\377\376\0\0",
    b"\0" * 4096,
    b'{"step": 20, "lo',
    '{"step": 20, "é'.encode()[:-1],
    b"3\n",
    b"[]\n",
    b"null\n",
    b"{}\n",
    b'{"step": "x"}\n',
    b'{"step": true}\n',
    b"[" * 100_000,
    b'\n\n{"step"\n\xff\n',
    b"\n",
]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_what_a_crash_left_at_the_end_is_cut_off(tmp_path, garbage):
    path = tmp_path / "log.jsonl"
    path.write_bytes(TEXT + garbage)
    assert read_log(path) == ROWS
    RunLog(path, 100, 14, 14)
    assert path.read_bytes() == TEXT


@pytest.mark.parametrize("garbage", [g for g in GARBAGE if g.strip()])
def test_a_line_in_the_middle_is_named(tmp_path, garbage):
    path = tmp_path / "log.jsonl"
    path.write_bytes(TEXT + garbage.rstrip(b"\n").replace(b"\n", b" ") + b"\n" + TEXT)
    with pytest.raises(
        UserError, match=r"log.jsonl, line 3: expected a JSON object with a step"
    ) as error:
        read_log(path)
    assert "\n" not in str(error.value)


def test_a_missing_log_has_no_rows(tmp_path):
    assert read_log(tmp_path / "log.jsonl") == []
