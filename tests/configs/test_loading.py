"""From files and flags to one configuration."""

import hashlib
import json
import re
import tomllib

import pytest

from configs import Batch, ConfigError, load, usage
from configs.loading import DEFAULT, PRESETS, _check_key, merge
from configs.nanogpt import NAMES

BASES = sorted(PRESETS.glob("*.toml"))
OVERLAYS = sorted({*PRESETS.glob("*/*.toml")} - {*PRESETS.glob("contest/*.toml")})


@pytest.mark.parametrize("path", BASES, ids=lambda p: p.stem)
def test_every_base_is_whole_and_divides_on_1_2_and_8_ranks(path):
    config = load([str(path)])
    for world_size in (1, 2, 8):
        batch = Batch.divide(config, world_size)
        assert batch.size * config.model.block_size == config.train.batch_tokens
        assert batch.rows % batch.micro == 0


@pytest.mark.parametrize("path", OVERLAYS, ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_every_overlay_holds_its_own_table_and_nothing_else(path):
    table = tomllib.loads(path.read_text())
    if path.parent.name == "model":  # a larger one needs smaller micro-batches
        assert set(table.pop("train", ())) <= {"micro_batch_size"}
    assert set(table) == {path.parent.name}


def test_later_files_and_then_flags_win(tmp_path):
    overlay = tmp_path / "overlay.toml"
    overlay.write_text("seed = 7\n[train]\ntotal_steps = 70\n")
    config = load([str(DEFAULT), str(overlay), "--train.total_steps", "71"])
    assert (config.seed, config.train.total_steps) == (7, 71)
    assert config.train.batch_tokens == 524288  # what the overlay does not name stays


def test_another_name_drops_the_earlier_ones_hyperparameters():
    base = {"optimizer": {"name": "adamw", "betas": [0.9, 0.95], "lr": 1.0}}
    assert merge(base, {"optimizer": {"name": "lion"}}) == {"optimizer": {"name": "lion"}}
    kept = merge(base, {"optimizer": {"name": "adamw", "lr": 2.0}})
    assert kept["optimizer"] == {"name": "adamw", "betas": [0.9, 0.95], "lr": 2.0}
    config = load(["--schedule.name", "rex", "--schedule.warmup_steps", "5"])
    assert config.schedule.hyperparameters == {"warmup_steps": 5}


@pytest.mark.parametrize(
    ("flags", "value"),
    [
        (["--optimizer.lr", "3e-4"], 3e-4),
        (["--optimizer.lr=3e-4"], 3e-4),
        (["--optimizer.lr", "-1"], -1),
        (["--optimizer.lr", ".5"], 0.5),
        (["--optimizer.lr", "0.9,0.99"], (0.9, 0.99)),
        (["--optimizer.lr", "(0.9, .99)"], (0.9, 0.99)),
        (["--optimizer.lr", "((0, 1), (1, 0))"], ((0, 1), (1, 0))),
        (["--optimizer.lr", "True"], True),
        (["--optimizer.lr", "1,000"], "1,000"),
        (["--optimizer.lr", '"1e3"'], "1e3"),
        (["--optimizer.lr", "a.b,c"], "a.b,c"),
    ],
)
def test_flag_values_are_toml_or_what_people_also_write(flags, value):
    read = load(flags).optimizer.hyperparameters["lr"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(("text", "steps"), [("1e3", 1000), ("1.5E+3", 1500), ("2_000", 2000)])
def test_whole_numbers_may_be_scientific(text, steps):
    assert load(["--train.total_steps", text]).train.total_steps == steps


def test_none_and_python_booleans():
    config = load(["--log.entity", "none", "--train.compile=False", "--log.project", "none"])
    assert config.log.entity is None
    assert config.train.compile is False
    assert config.log.project == "none"  # a word like any other where None is not valid


def test_every_key_of_the_table_for_nanogpt_exists():
    for name, hint in NAMES.items():
        with pytest.raises(ConfigError, match=f"^unknown key '{name}'; "):
            load([f"--{name}", "1"])
        named = re.findall(r"--([\w.]+)", hint)
        assert named or hint.startswith("there is none"), hint
        for key in named:
            _check_key(key)


@pytest.mark.parametrize("name", ["block_size", "n_layer", "grad_clip", "device", "dtype", "lr"])
def test_last_part_of_a_key_is_enough_for_a_hint(name):
    with pytest.raises(ConfigError, match=rf"did you mean '\w+\.{name}'"):
        load([f"--{name}", "1"])


def test_last_word_of_a_key_is_enough_too_after_whole_parts():
    with pytest.raises(ConfigError, match=r"'steps'; did you mean 'train\.total_steps'"):
        load(["--steps", "1"])
    with pytest.raises(ConfigError, match=r"'every'; did you mean 'eval\.every'"):
        load(["--every", "1"])  # not log.print_every


def test_words_need_no_quotes_and_lists_work():
    config = load(["--optimizer.betas", "[0.8, 0.9]", "--log.group", "contest one"])
    assert config.optimizer.hyperparameters["betas"] == (0.8, 0.9)
    assert config.log.group == "contest one"


def test_written_toml_reads_back_to_the_same_run(tmp_path):
    config = load(["--optimizer.betas", "[0.8, 0.9]", "--seed", "3", "--log.entity", "team"])
    path = tmp_path / "config.toml"
    path.write_text(config.toml())
    again = load([str(path)])
    assert again == config
    assert again.run_name == config.run_name


@pytest.mark.parametrize(
    "flags",
    [
        ["--seed", "2"],
        ["--data_seed", "2"],
        ["--optimizer.lr", "1e-4"],
        ["--schedule.min_lr_ratio", "0.2"],
        ["--train.total_steps", "5"],
        ["--data.format", "nanogpt"],
        ["--eval.tokens", "1024"],
        ["--train.dtype", "float32"],
    ],
)
def test_whatever_can_change_the_result_changes_the_run(flags):
    assert load(flags).run_name != load([]).run_name


def test_output_and_checkpoints_do_not_change_the_run():
    flags = ["--log.dir", "x", "--log.group", "g", "--log.wandb", "disabled"]
    flags += ["--checkpoint.every", "7", "--checkpoint.keep", "1"]
    flags += ["--launch.accept_other_hardware", "true", "--train.shard_optimizer", "true"]
    assert load(flags).run_name == load([]).run_name


def test_a_run_moves_to_a_smaller_gpu_and_to_another_mount_under_its_own_name():
    flags = ["--train.micro_batch_size", "4", "--data.dir", "/another/mount"]
    assert load(flags).run_name == load([]).run_name


def test_the_former_name_is_that_of_the_versions_that_hashed_the_place_of_the_data():
    config = load(["--data.dir", "/some/mount", "--train.micro_batch_size", "4"])
    outside = {"versions", "log", "checkpoint", "launch", "diagnose"}
    table = config.model_dump(exclude_none=True, exclude=outside)
    for later in ("shard_optimizer", "activation_checkpointing"):
        del table["train"][later]
    digest = hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()[:8]
    assert config.former_name == f"adamw-cosine-s1-{digest}"
    assert config.former_name not in (config.run_name, load([]).former_name)


def test_run_name_tells_optimizer_schedule_and_seed():
    name = load(["--optimizer.name", "lab.deep.MyOpt", "--seed", "4"]).run_name
    assert name.startswith("myopt-cosine-s4-")
    assert len(name.rpartition("-")[2]) == 8


def test_configuration_cannot_be_changed_afterwards():
    with pytest.raises(ValueError, match="frozen"):
        load([]).train.total_steps = 5


def test_usage_names_every_key_with_its_meaning():
    text = usage()
    for key in ("--seed", "--train.grad_clip", "--log.wandb", "--model.n_layer"):
        (line,) = [row for row in text.splitlines() if row.startswith(f"{key} ")]
        assert len(line.split("  ")[-1]) > 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed = ", "not valid TOML"),
        ("[train]\nsteps = 3", "unknown key 'train.steps'"),
        ("[trian]\nx = 3", "unknown key 'trian'; did you mean 'train'"),
        ("[optimizer]\nlr = 1\nname = 3", "optimizer.name = 3: should be a valid string"),
        ("train = 3", "train = 3"),
    ],
)
def test_mistake_in_a_file(tmp_path, text, message):
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"^[^\n]*$") as caught:
        load([str(DEFAULT), str(path)])
    assert message in str(caught.value)


def test_misspelt_file_is_guessed():
    with pytest.raises(ConfigError, match=r"did you mean 'configs/schedule/wsd.toml'"):
        load(["configs/schedule/wds.toml"])


def test_flag_below_a_plain_value_is_refused():
    with pytest.raises(ConfigError, match=r"unknown key 'seed.x'"):
        load(["--seed.x", "1"])


@pytest.mark.parametrize(
    ("flags", "world", "product"),
    [
        (["--train.batch_tokens", "500000"], 8, "8 ranks x block_size 1024 = 8192"),
        (["--train.micro_batch_size", "48"], 8, "x micro_batch_size 48 x block_size 1024 = 393216"),
    ],
)
def test_batch_that_does_not_divide_shows_the_product(flags, world, product):
    with pytest.raises(ConfigError, match=product):
        Batch.divide(load(flags), world)
