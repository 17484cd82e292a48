"""Bring your own: a dotted path to any torch-style class, or to a function as schedule."""

import pickle
import sys

import pytest
import tomli_w
import torch

from configs import ConfigError, load
from optim import build_optimizer, build_schedule, resolve, resolve_optimizer, resolve_schedule

MY_LAB = '''
from __future__ import annotations

import typing

import torch

if typing.TYPE_CHECKING:
    from somewhere import Params

NOT_A_CLASS = 3


class NotAnOptimizer:
    pass


class Modal(torch.optim.SGD):
    """Like schedulefree's: the weights have a training and an evaluation mode."""

    def __init__(self, params: Params, lr=1e-2, weight_decay=0, warmup=None, tie: Params = None):
        super().__init__(params, lr=lr, weight_decay=weight_decay)
        self.mode = "train"

    def train(self):
        self.mode = "train"

    def eval(self):
        self.mode = "eval"


class Own(torch.optim.SGD):
    """Has the hooks already, under their names."""

    def diagnostics(self):
        return {"d": 2.0}


class Fussy(torch.optim.SGD):
    """Refuses keys that it does not know."""

    def __init__(self, params, *, lr: float, betas=(0.9, 0.99), **kwargs):
        params = list(params)
        if any(set(group) - {"params", "lr"} for group in params):
            raise KeyError("unknown key in a group")
        super().__init__(params, lr=lr)


class Merging(Fussy):
    """Refuses keys, and makes one group of all."""

    def __init__(self, params, *, lr: float = 1.0):
        params = list(params)
        if any("role" in group for group in params):
            raise KeyError("role")
        super().__init__([{"params": sum((group["params"] for group in params), [])}], lr=lr)


class NoRate(torch.optim.SGD):
    def __init__(self, params, speed=1.0):
        super().__init__(params, lr=speed)


class Scaled(torch.optim.SGD):
    def __init__(self, params, lr: float = 1.0, scale: float | None = 2.0):
        super().__init__(params, lr=lr)


class Broken(torch.optim.SGD):
    def __init__(self, params, lr=1.0):
        raise RuntimeError("no luck today\\nand a second line")
'''


@pytest.fixture
def my_lab(tmp_path, monkeypatch):
    (tmp_path / "my_lab.py").write_text(MY_LAB)
    (tmp_path / "broken_lab.py").write_text("import a_package_that_is_not_there")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("my_lab", None)


def test_torchs_other_classes_work(parameters, groups, replay):
    ours, theirs = parameters(), parameters()
    optimizer = build_optimizer("torch.optim.Adamax", groups(ours), lr=1, betas=[0.8, 0.9])
    replay(optimizer, ours)
    replay(torch.optim.Adamax(groups(theirs), lr=1.0, betas=(0.8, 0.9)), theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert isinstance(optimizer, torch.optim.Adamax)
    assert type(optimizer).__name__ == "Adamax"
    optimizer.train_mode()
    optimizer.eval_mode()
    assert optimizer.diagnostics() == {}


def test_resolved_can_be_written_as_toml():
    classes = {"Adamax", "Adafactor", "Adadelta", "ASGD", "Rprop", "Muon", "LBFGS"}
    for name in sorted(classes | {"Adam", "AdamW", "SGD", "NAdam", "RAdam", "Adagrad", "RMSprop"}):
        resolved = resolve_optimizer(f"torch.optim.{name}", {})
        tomli_w.dumps(resolved)
        assert resolve_optimizer(f"torch.optim.{name}", resolved) == resolved
    adamax = resolve_optimizer("torch.optim.Adamax", {"lr": 1})
    assert adamax["lr"] == 1.0
    assert adamax["betas"] == (0.9, 0.999)
    assert "foreach" not in adamax, "its default is None"


def test_train_and_eval_are_called_by_the_hooks(my_lab, parameters, groups):
    import my_lab as lab

    optimizer = build_optimizer("my_lab.Modal", groups(parameters()))
    assert isinstance(optimizer, lab.Modal)
    optimizer.eval_mode()
    assert optimizer.mode == "eval"
    optimizer.train_mode()
    assert optimizer.mode == "train"


def test_the_classs_own_hooks_are_kept(my_lab, parameters):
    optimizer = build_optimizer("my_lab.Own", parameters().values())
    assert optimizer.diagnostics() == {"d": 2.0}
    optimizer.eval_mode()


def test_types_are_read_off_defaults_where_annotations_fail(my_lab):
    resolved = resolve_optimizer("my_lab.Modal", {"weight_decay": 0.5})
    assert resolved == {"lr": 0.01, "weight_decay": 0.5}
    assert resolve_optimizer("my_lab.Modal", {"warmup": 10})["warmup"] == 10
    for wrong in ({"lr": "fast"}, {"weight_decay": True}):
        with pytest.raises(ConfigError, match="should be a valid"):
            resolve_optimizer("my_lab.Modal", wrong)


def test_extra_keys_are_added_for_a_class_that_refuses_them(my_lab, parameters, groups):
    optimizer = build_optimizer("my_lab.Fussy", groups(parameters()), lr=0.1)
    assert [g["role"] for g in optimizer.param_groups] == ["embedding", "hidden", "vector"]
    assert optimizer.param_groups[2]["weight_decay"] == 0.0
    assert [len(g["params"]) for g in optimizer.param_groups] == [1, 2, 2]


def test_a_class_that_regroups_and_refuses_keys_is_named(my_lab, parameters, groups):
    with pytest.raises(ConfigError, match=r"'my_lab.Merging' makes 1 groups of 3 and refuses"):
        build_optimizer("my_lab.Merging", groups(parameters()))


@pytest.mark.parametrize("name", ["torch.optim.Adamax", "my_lab.Modal"])
def test_it_can_be_pickled_and_goes_on_to_the_same_bits(name, my_lab, parameters, groups, replay):
    named = parameters()
    optimizer = build_optimizer(name, groups(named), lr=0.1)
    replay(optimizer, named, last=3)
    copied, again = pickle.loads(pickle.dumps((named, optimizer)))
    assert type(again) is type(optimizer)
    replay(optimizer, named, first=3)
    replay(again, copied, first=3)
    assert all(torch.equal(named[key], copied[key]) for key in named)


def test_state_dict_round_trips(my_lab, parameters, groups, replay):
    through, halves = parameters(), parameters()
    name, hyperparameters = "torch.optim.Adamax", {"lr": 0.1}
    replay(build_optimizer(name, groups(through), **hyperparameters), through)
    first = build_optimizer(name, groups(halves), **hyperparameters)
    replay(first, halves, last=4)
    second = build_optimizer(name, groups(halves), **hyperparameters)
    second.load_state_dict(first.state_dict())
    replay(second, halves, first=4)
    assert all(torch.equal(through[key], halves[key]) for key in through)


@pytest.mark.parametrize(
    ("name", "hyperparameters", "message"),
    [
        ("no_such_lab.Opt", {}, r"cannot import 'no_such_lab' \(ModuleNotFoundError: .*PYTHONPATH"),
        ("broken_lab.Opt", {}, r"cannot import 'broken_lab' .*a_package_that_is_not_there"),
        (
            "my_lab.Model",
            {},
            r"'my_lab' has no 'Model'; did you mean 'Modal'\? valid: Broken, Fu",
        ),
        ("my_lab.NOT_A_CLASS", {}, r"is of type int, not a subclass of torch.optim.Optimizer"),
        ("my_lab.NotAnOptimizer", {}, r"is a class, not a subclass of torch.optim.Optimizer"),
        ("my_lab.NoRate", {}, r"its constructor has no parameter 'lr', which the schedule scales"),
        ("my_lab.Fussy", {}, r"^'optimizer.lr' is missing; give it in a TOML file or as --opti"),
        (
            "my_lab.Fussy",
            {"lr": 1.0, "nu": 2},
            r"^unknown key 'optimizer.nu'; .*valid: betas, lr",
        ),
        ("my_lab.Fussy", {"lr": 1.0, "betas": [0.9]}, r"^optimizer.betas = \[0.9\]: "),
        ("my_lab.Broken", {}, r"^optimizer 'my_lab.Broken' cannot be built: RuntimeError: no luck"),
        ("torch.optim.Muon", {}, r"^optimizer 'torch.optim.Muon' cannot be built: .*2D"),
        (".", {}, r"optimizer.name = '.': cannot import ''"),
    ],
)
def test_mistakes_are_named_in_one_line(my_lab, name, hyperparameters, message, parameters):
    with pytest.raises(ConfigError, match=message) as caught:
        build_optimizer(name, parameters().values(), **hyperparameters)
    assert "\n" not in str(caught.value)


def test_schedulefree_itself(parameters, groups, replay):
    schedulefree = pytest.importorskip("schedulefree")
    named = parameters()
    name = "schedulefree.AdamWScheduleFree"
    optimizer = build_optimizer(name, groups(named), lr=0.01, warmup_steps=2)
    assert isinstance(optimizer, schedulefree.AdamWScheduleFree)
    optimizer.train_mode()
    replay(optimizer, named, last=5)
    training = {key: p.detach().clone() for key, p in named.items()}
    optimizer.eval_mode()
    assert not torch.equal(named["c_attn"], training["c_attn"])
    optimizer.train_mode()
    assert torch.allclose(named["c_attn"], training["c_attn"], atol=1e-6)
    again = build_optimizer(name, groups(named), lr=0.01, warmup_steps=2)
    again.load_state_dict(optimizer.state_dict())


# ---------------------------------------------------------------- schedules

MY_SCHEDULES = """
NUMBER = 3

def ramp(step, total_steps, *, end: float = 0.25, power: int = 1):
    return 1 - (1 - end) * (step / total_steps) ** power

def other_names(t, T):
    return 1.0

def too_large(step, total_steps):
    return 2

def nothing(step, total_steps):
    return None

def zero(step, total_steps, *, by=0):
    return 1 / by
"""


@pytest.fixture
def my_schedules(tmp_path, monkeypatch):
    (tmp_path / "my_schedules.py").write_text(MY_SCHEDULES)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "my_schedules.py"
    sys.modules.pop("my_schedules", None)


def test_a_function_from_elsewhere_is_a_schedule(my_schedules):
    assert resolve_schedule("my_schedules.ramp", {"end": 0}) == {"end": 0.0, "power": 1}
    schedule = build_schedule("my_schedules.ramp", 10, power=2)
    assert schedule.factors == pytest.approx([1 - 0.75 * (t / 10) ** 2 for t in range(11)])
    assert schedule.name == "my_schedules.ramp"


@pytest.mark.parametrize(
    ("name", "hyperparameters", "message"),
    [
        ("no_such_lab.f", {}, r"^schedule.name = 'no_such_lab.f': cannot import 'no_such_lab'"),
        ("my_schedules.rap", {}, r"has no 'rap'; did you mean 'ramp'\? valid: nothing, other"),
        ("my_schedules.NUMBER", {}, r"is of type int, not a function; name a function `\(step, "),
        ("my_schedules.other_names", {}, r"first parameters are t, T; they should be step, total_"),
        ("my_schedules.ramp", {"end": "low"}, r"^schedule.end = 'low': should be a valid number$"),
        ("my_schedules.ramp", {"ends": 1}, r"^unknown key 'schedule.ends'; did you mean 'end'\?"),
        ("my_schedules.too_large", {}, r"gives factor 2.0 at step 0; it must lie in \[0, 1\]$"),
        ("my_schedules.nothing", {}, r"cannot be evaluated with \{\}: TypeError: "),
        ("my_schedules.zero", {}, r"cannot be evaluated with \{'by': 0\}: ZeroDivisionError: "),
    ],
)
def test_mistakes_in_schedules_are_named_in_one_line(my_schedules, name, hyperparameters, message):
    with pytest.raises(ConfigError, match=message) as caught:
        build_schedule(name, 10, **hyperparameters)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- versions


def test_versions_follow_the_file_and_only_dotted_names_have_one(my_schedules):
    def resolved(*flags):
        return resolve(load(flags))

    names = ["--optimizer.name", "torch.optim.Adamax", "--schedule.name", "my_schedules.ramp"]
    before = resolved(*names)
    assert set(before.versions) == {"torch.optim.Adamax", "my_schedules.ramp"}
    my_schedules.write_text(MY_SCHEDULES + "# a comment\n")
    after = resolved(*names)
    changed = {name for name in before.versions if before.versions[name] != after.versions[name]}
    assert changed == {"my_schedules.ramp"}
    assert before.run_name != after.run_name
    assert resolved("--optimizer.name", "lion").versions == {}
    assert "versions" not in resolved().table()  # so runs of our own names keep their folders


def test_a_class_without_a_file_is_refused(my_lab, monkeypatch):
    import my_lab as lab

    monkeypatch.setattr(lab.Modal, "__module__", "builtins")
    with pytest.raises(ConfigError, match=r"^optimizer.name = 'my_lab.Modal': the record needs"):
        resolve(load(["--optimizer.name", "my_lab.Modal"]))


def test_none_is_refused_where_the_record_could_not_say_it(my_lab):
    assert "warmup" not in resolve_optimizer("my_lab.Modal", {"warmup": "none"})
    with pytest.raises(ConfigError, match=r"^optimizer.scale = none: the record cannot hold it"):
        resolve_optimizer("my_lab.Scaled", {"scale": "none"})


def test_a_class_in_the_current_folder_is_found_though_the_script_lies_elsewhere(
    tmp_path, monkeypatch
):
    (tmp_path / "lab_beside_me.py").write_text(
        "import torch\nclass Mine(torch.optim.SGD):\n    pass\n"
    )
    elsewhere = [path for path in sys.path if path not in ("", str(tmp_path))]
    monkeypatch.setattr(sys, "path", elsewhere)
    monkeypatch.chdir(tmp_path)
    assert build_optimizer("lab_beside_me.Mine", [torch.ones(1, requires_grad=True)], lr=0.1)
