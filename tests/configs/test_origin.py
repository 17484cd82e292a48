"""The opening lines say where each hyperparameter comes from."""

from configs import load, origins
from configs.loading import PRESETS
from configs.origin import settings
from optim import resolve

QUICKSTART = str(PRESETS / "quickstart.toml")


def lines(*argv):
    return settings(resolve(load(argv)), origins(argv))


def test_a_file_gives_its_values_and_the_code_the_rest():
    assert lines(QUICKSTART) == [
        "optimizer adamw: lr 0.003, betas 0.9,0.95, weight_decay 0.1 (configs/quickstart.toml);"
        " eps 1e-08, amsgrad false (default)",
        "schedule  cosine: warmup_steps 0.05, min_lr_ratio 0.1 (configs/quickstart.toml)",
    ]


def test_a_name_by_flag_leaves_the_defaults_and_names_the_preset_that_differs():
    optimizer, _ = lines(QUICKSTART, "--optimizer.name", "lion")
    assert optimizer == (
        "optimizer lion: lr 0.0001, betas 0.9,0.99, weight_decay 0 (default);"
        " preset configs/optimizer/lion.toml has lr 0.0003, weight_decay 0.2"
    )


def test_flags_come_first_and_what_they_set_is_not_held_against_the_preset():
    flags = ["--optimizer.name", "lion", "--optimizer.weight_decay", "0.3"]
    optimizer, schedule = lines(QUICKSTART, *flags, "--schedule.min_lr_ratio", "0")
    assert (
        optimizer == "optimizer lion: weight_decay 0.3 (flag); lr 0.0001, betas 0.9,0.99 (default);"
        " preset configs/optimizer/lion.toml has lr 0.0003"
    )
    assert schedule == (
        "schedule  cosine: min_lr_ratio 0 (flag); warmup_steps 0.05 (configs/quickstart.toml)"
    )


def test_an_overlay_is_the_origin_of_what_it_gives(tmp_path):
    own = tmp_path / "own.toml"
    own.write_text('[optimizer]\nname = "adamw"\nlr = 1e-3\n')
    optimizer, _ = lines(QUICKSTART, str(own))
    assert optimizer.startswith(
        f"optimizer adamw: lr 0.001 ({own}); betas 0.9,0.95, weight_decay 0.1 (configs/quickstart"
    )
    lion, _ = lines(QUICKSTART, str(own), str(PRESETS / "optimizer/lion.toml"))
    assert lion == (
        "optimizer lion: lr 0.0003, betas 0.9,0.99, weight_decay 0.2 (configs/optimizer/lion.toml)"
    )


def test_a_ratio_of_a_role_is_shown_as_the_rate_that_it_gives():
    flags = ["--optimizer.roles.embedding.lr_ratio", "2", "--optimizer.roles.vector.eps", "1e-6"]
    optimizer, schedule = lines(QUICKSTART, *flags, "--schedule.roles.hidden.name", "linear")
    assert optimizer.startswith(
        "optimizer adamw: embedding lr 0.006 (x2), vector eps 1e-06 (flag); lr 0.003,"
    )
    assert optimizer.endswith("eps 1e-08, amsgrad false (default)")
    assert schedule.startswith("schedule  cosine: hidden name linear (flag); warmup_steps 0.05")


def test_an_overlay_gives_its_roles(tmp_path):
    own = tmp_path / "own.toml"
    own.write_text("[optimizer.roles.embedding]\nlr_ratio = 0.5\nweight_decay = 0.0\n")
    optimizer, _ = lines(QUICKSTART, str(own))
    assert f"; embedding lr 0.0015 (x0.5), embedding weight_decay 0 ({own});" in optimizer
