"""diagnose.jsonl: what is written, cut off, and read again; and the noise scale."""

import json
import math

import pytest

from record import inside
from record.inside import InsideFile, Noise

NAMES = {"tensors": ["h.0.a", "h.11.b", "wte"], "roles": ["hidden", "hidden", "embedding"]}


def found(step, **noise):
    columns = {"gain": [1.0 + step, 3.0 + step, math.inf], "cosine": [0.123456789, 0.5, 1.0]}
    return NAMES | columns | ({"noise": noise} if noise else {})


def written(folder, steps, updates=0):
    file = InsideFile(folder, lambda: updates)
    curves = [file.log(step, found(step, gradient_square=1.0, trace=10.0 * step)) for step in steps]
    file.close()
    return curves


def test_what_is_written_can_be_read(tmp_path):
    curves = written(tmp_path, [0, 10])
    measured = inside.read(tmp_path)
    assert measured.steps.tolist() == [0, 10]
    assert measured.tensors == ("h.0.a", "h.11.b", "wte")
    assert measured.layers == [0, 11, None]
    assert measured.columns["gain"][1, :2].tolist() == [11.0, 13.0]
    assert math.isnan(measured.columns["gain"][1, 2])
    assert measured.columns["cosine"][0].tolist() == [0.123457, 0.5, 1.0]
    assert measured.noise["trace"].tolist() == [0.0, 100.0]
    assert curves[1]["inside/gain_hidden"] == 12.0  # the median
    assert curves[1]["inside/gain_embedding"] is None  # nothing finite
    assert curves[1]["inside/cosine_embedding"] == 1.0


def test_without_a_measurement_there_is_no_file(tmp_path):
    file = InsideFile(tmp_path, lambda: pytest.fail("nothing to cut"))
    file.sync()
    file.close()
    assert inside.read(tmp_path) is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("tail", [b"", b'{"step": 30, "gai', b"\0\0\n"])
def test_a_resumed_run_goes_on_as_one_that_was_never_killed(tmp_path, tail):
    calm, killed = tmp_path / "calm", tmp_path / "killed"
    calm.mkdir()
    killed.mkdir()
    curves = written(calm, [0, 10, 20, 30])
    written(killed, [0, 10, 20])  # 20 is after the checkpoint of update 15
    with (killed / inside.FILE).open("ab") as file:
        file.write(tail)
    again = written(killed, [20, 30], updates=15)
    assert again == curves[2:]  # also the moving averages
    assert (killed / inside.FILE).read_bytes() == (calm / inside.FILE).read_bytes()


def test_a_run_that_begins_anew_writes_the_file_anew(tmp_path):
    written(tmp_path, [0, 10])
    written(tmp_path, [0], updates=0)
    lines = (tmp_path / inside.FILE).read_text().splitlines()
    assert json.loads(lines[0]) == NAMES
    assert [json.loads(line)["step"] for line in lines[1:]] == [0]


def test_lines_after_a_damaged_one_are_left_out(tmp_path):
    written(tmp_path, [0, 10, 20])
    path = tmp_path / inside.FILE
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b"{\n", *lines[3:]]))
    assert inside.read(tmp_path).steps.tolist() == [0]
    path.write_bytes(lines[0][:9])
    assert inside.read(tmp_path) is None


def test_noise_scale_is_the_ratio_of_averages_and_not_the_average_of_ratios():
    noise = Noise()
    for _ in range(500):
        noise.update({"gradient_square": 1.0, "trace": 4.0})
        scale = noise.update({"gradient_square": 3.0, "trace": 4.0})
    # the later of the two has the weight 1 / (1 + decay)
    assert scale == pytest.approx(4 / ((3 + 0.9 * 1) / 1.9))
    assert Noise().update({"gradient_square": -1.0, "trace": 4.0}) is None
    first = Noise()
    assert first.update({"gradient_square": 2.0, "trace": 8.0}) == pytest.approx(4.0)
