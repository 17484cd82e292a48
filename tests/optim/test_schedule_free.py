"""Schedule-free methods: against the authors' package, the average itself, and the two modes."""

import io

import pytest
import schedulefree
import torch

from optim import build_optimizer, build_schedule

SGD = ("schedule_free_sgd", schedulefree.SGDScheduleFree, {"lr": 0.3, "momentum": 0.9})
ADAMW = (
    "schedule_free_adamw",
    schedulefree.AdamWScheduleFree,
    {"lr": 3e-3, "betas": (0.9, 0.99), "eps": 1e-6},
)
NAMES = ("schedule_free_sgd", "schedule_free_adamw")


def doubled(parameters):
    return {name: torch.nn.Parameter(p.detach().double()) for name, p in parameters().items()}


def gradients(named, step):
    for index, p in enumerate(named.values()):
        generator = torch.Generator().manual_seed(100 * step + index)
        p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)


def close(ours, reference, tolerance=1e-12):
    for name, p in ours.items():
        scale = reference[name].detach().abs().max()
        assert (p - reference[name]).abs().max() <= tolerance * scale, name


@pytest.mark.parametrize(("name", "package", "values"), [SGD, ADAMW], ids=NAMES)
@pytest.mark.parametrize("more", [{}, {"r": 0.5}, {"weight_lr_power": 1.0, "weight_decay": 0.2}])
@pytest.mark.parametrize("warmup", [0, 5])
def test_equals_the_package(name, package, values, more, warmup, parameters, groups):
    """Also with the package's warm-up as our schedule, and with evaluations in between."""
    ours, theirs = doubled(parameters), doubled(parameters)
    optimizer = build_optimizer(name, groups(ours), **values, **more)
    reference = package(groups(theirs), **values, **more, warmup_steps=warmup)
    reference.train()
    for step in range(12):
        for group in optimizer.param_groups:
            factor = min(1, (step + 1) / warmup) if warmup else 1
            group["lr"] = optimizer.defaults["lr"] * factor
        gradients(ours, step)
        gradients(theirs, step)
        optimizer.step()
        reference.step()
        close(ours, theirs)
        if step % 4 == 3:
            optimizer.eval_mode()
            reference.eval()
            close(ours, theirs)
            optimizer.train_mode()
            reference.train()


def test_sgd_evaluates_the_weighted_average_of_its_iterates(parameters, groups):
    """x = sum of w_t z_{t+1} / sum of w_t, with the lr of each step in w, decaying too."""
    named = doubled(parameters)
    optimizer = build_optimizer("schedule_free_sgd", groups(named), lr=0.1, momentum=0.8)
    total, average = 0.0, {name: torch.zeros_like(p) for name, p in named.items()}
    for step, lr in enumerate([0.02, 0.1, 0.1, 0.0, 0.05, 0.01]):
        for group in optimizer.param_groups:
            group["lr"] = lr
        gradients(named, step)
        optimizer.step()
        total += lr**2
        for name, p in named.items():
            average[name] += lr**2 * optimizer.state[p]["z"]
    optimizer.eval_mode()
    close(named, {name: value / total for name, value in average.items()}, 1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_an_evaluation_changes_no_bit_of_training(name, parameters, groups, replay):
    plain, evaluated = parameters(), parameters()
    replay(build_optimizer(name, groups(plain)), plain)
    optimizer = build_optimizer(name, groups(evaluated))
    optimizer.eval_mode()
    optimizer.train_mode()
    for step in range(12):
        replay(optimizer, evaluated, step, step + 1)
        before = {key: p.detach().clone() for key, p in evaluated.items()}
        optimizer.eval_mode()
        optimizer.eval_mode()
        if step:
            assert not any(torch.equal(before[key], p) for key, p in evaluated.items())
        optimizer.train_mode()
        optimizer.train_mode()
    assert all(torch.equal(plain[key], evaluated[key]) for key in plain)
    assert all(set(s) == set(optimizer.state[plain_p]) for plain_p, s in optimizer.state.items())


@pytest.mark.parametrize("name", NAMES)
def test_a_step_in_eval_mode_is_refused(name, parameters, groups, replay):
    for steps in (0, 2):
        named = parameters()
        optimizer = build_optimizer(name, groups(named))
        replay(optimizer, named, last=steps)
        optimizer.eval_mode()
        with pytest.raises(RuntimeError, match=r"step\(\) in eval mode.*call train_mode\(\)"):
            replay(optimizer, named, steps, steps + 1)
        assert all(state["step"] == steps for state in optimizer.state.values())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_a_checkpoint_of_either_mode_goes_on_to_the_same_bits(
    name, mode, parameters, groups, replay
):
    through, first, second = parameters(), parameters(), parameters()
    replay(build_optimizer(name, groups(through)), through)
    optimizer = build_optimizer(name, groups(first))
    replay(optimizer, first, last=5)
    if mode == "eval":
        optimizer.eval_mode()
    file = io.BytesIO()
    torch.save({"weights": first, "optimizer": optimizer.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed = build_optimizer(name, groups(second))
    resumed.eval_mode()  # the mode is that of the checkpoint, whatever it was
    resumed.load_state_dict(saved["optimizer"])
    for key, p in second.items():
        p.data.copy_(saved["weights"][key])
    resumed.train_mode()
    replay(resumed, second, first=5)
    assert all(torch.equal(through[key], second[key]) for key in through)


@pytest.mark.parametrize("name", NAMES)
def test_a_decaying_schedule_is_named(name, parameters, groups):
    optimizer = build_optimizer(name, groups(parameters()))
    assert optimizer.check_schedule(build_schedule("constant", 100, warmup_steps=10)) is None
    for decaying in ("cosine", "wsd", "linear_to_zero"):
        conflict = optimizer.check_schedule(build_schedule(decaying, 100))
        assert f"schedule '{decaying}' decays" in conflict
        assert "\n" not in conflict
    plain = build_optimizer("adamw", groups(parameters()))
    assert plain.check_schedule(build_schedule("cosine", 100)) is None
