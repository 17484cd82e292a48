"""Ranks that share the work of an optimizer compute what one process computes, bit for bit."""

import copy
from itertools import pairwise

import pytest
import torch

from configs import ConfigError, load
from optim import build_optimizer, optimizer_of, optimizer_state_bytes, resolve
from optim.core.ownership import Owned, owners
from tests.jobs import assert_same, finish, once, ranks
from tests.optim.core.ownership_job import built, cases, state, train
from train_gpt2 import GPT

CASES = list(cases())
STEPS = (0, 1, 3, 5, 6)  # one process to 1, two ranks to 3, four to 5, one process to 6


def train_all(folder):
    """Alone in one process, then on two and on four ranks from where fewer stopped."""
    found = {}
    for case in CASES:
        params, optimizer = built(case)
        found[case] = {}
        for first, last in pairwise(STEPS):
            train(params, optimizer, first, last)
            found[case][last] = copy.deepcopy(state(params, optimizer))
            found[case][f"bytes at {last}"] = optimizer_state_bytes(optimizer)
    torch.save(found, folder / "alone")
    torch.save({case: found[case][1] for case in CASES}, folder / "1")
    for before, world_size, first, last in (("1", 2, 1, 3), ("2", 4, 3, 5)):
        files = [str(folder / before), str(folder / str(world_size))]
        arguments = ["tests.optim.core.ownership_job", *files, str(first), str(last)]
        for rank in ranks(arguments, world_size, program="-m"):
            finish(rank)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder in which `train_all` left its states."""
    return once(tmp_path_factory, "ownership", train_all)


@pytest.fixture(scope="module")
def alone(trained):
    """By case and step: the state of an optimizer in one process, never interrupted."""
    return torch.load(trained / "alone")


@pytest.fixture(scope="module")
def shared(trained):
    """By number of ranks: states after they went on from those of fewer ranks."""
    return {world_size: torch.load(trained / str(world_size)) for world_size in (2, 4)}


@pytest.mark.parametrize("case", CASES)
def test_ranks_go_on_where_fewer_stopped_with_the_bits_of_one_process(alone, shared, case):
    for world_size, last in ((2, 3), (4, 5)):
        found = shared[world_size][case]
        assert found["agree"], "all ranks have the same weights"
        for key, value in alone[case][last].items():
            assert_same(value, found[key], f"{world_size} ranks: {key}")


@pytest.mark.parametrize("case", CASES)
def test_one_process_goes_on_where_four_ranks_stopped(alone, shared, case):
    params, optimizer = built(case, copy.deepcopy(shared[4][case]))  # training changes it
    train(params, optimizer, 5, 6)
    assert_same(alone[case][6], state(params, optimizer))


@pytest.mark.parametrize("case", CASES)
def test_each_rank_keeps_the_state_of_its_own_parameters_alone(alone, shared, case):
    for world_size, last in ((2, 3), (4, 5)):
        kept, sizes = zip(*shared[world_size][case]["held"], strict=True)
        assert sum(kept) == len(alone[case][last]["optimizer"]["state"])
        assert sum(sizes) == alone[case][f"bytes at {last}"]


def test_owners_share_the_cost_and_a_rank_may_own_nothing():
    assert owners([4, 3, 3, 2, 2, 2], 2) == [0, 1, 1, 0, 0, 1]
    assert owners([1.0], 3) == [0]
    costs = [float(n) for n in torch.randint(1, 1000, (100,)).tolist()]
    loads = [0.0] * 8
    for cost, owner in zip(costs, owners(costs, 8), strict=True):
        loads[owner] += cost
    assert max(loads) - min(loads) <= max(costs)


class Coupled(torch.optim.SGD):
    """Its step size depends on all gradients."""

    def step(self, closure=None):
        norms = [
            p.grad.norm() for g in self.param_groups for p in g["params"] if p.grad is not None
        ]
        for group in self.param_groups:
            group["lr"] = 1e-3 / float(sum(norms))
        return super().step()


class Early(torch.optim.Adam):
    """Makes its state when it is built, and needs it only for parameters with a gradient."""

    def __init__(self, params, lr=1e-3):
        super().__init__(params, lr=lr)
        for group in self.param_groups:
            for p in group["params"]:
                zeros = {key: torch.zeros_like(p) for key in ("exp_avg", "exp_avg_sq")}
                self.state[p] = {"step": torch.zeros(()), **zeros}


class Moves(torch.optim.SGD):
    """Shrinks every parameter."""

    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                p.data.mul_(0.9)
        return super().step()


class Odd(torch.optim.SGD):
    """Keeps a count beside the parameters."""

    def step(self, closure=None):
        self.state["count"] = self.state.get("count", 0) + 1
        return super().step()


class Whole(torch.optim.SGD):
    """Needs every gradient."""

    def step(self, closure=None):
        torch.cat([p.grad.flatten() for g in self.param_groups for p in g["params"]])
        return super().step()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Coupled", "the update of a parameter depends on other parameters"),
        ("Moves", "it moves a parameter without a gradient"),
        ("Odd", "it keeps state for other things than parameters with a gradient"),
        ("Whole", r"it fails without some of the gradients \(AttributeError: .*\)"),
    ],
)
def test_a_class_whose_work_cannot_be_shared_is_refused_before_training(tiny, name, reason):
    given = ["--optimizer.name", f"{__name__}.{name}", "--train.shard_optimizer", "true"]
    config = resolve(load([*tiny, *given]))
    message = f"ranks cannot share the work of '{__name__}.{name}', since {reason}; set it to fal"
    with pytest.raises(ConfigError, match=message) as caught:
        optimizer_of(config, GPT(config.model).parameter_groups(), 0, 2)
    assert "\n" not in str(caught.value)
    assert optimizer_of(config, GPT(config.model).parameter_groups()).ranks == 1


@pytest.mark.parametrize("name", [f"{__name__}.Early", "torch.optim.Adamax"])
def test_a_class_from_elsewhere_is_shared_where_its_parameters_stand_alone(tiny, name):
    given = ["--optimizer.name", name, "--train.shard_optimizer", "true"]
    config = resolve(load([*tiny, *given]))
    with torch.device("meta"):
        optimizer = optimizer_of(config, GPT(config.model).parameter_groups(), 1, 2)
    assert optimizer.ranks == 2
    assert not {*optimizer.state} & optimizer.row.elsewhere


SHARED_BY_AUTO = [(name, 2) for name in ("muon", "soap", "scion", "psgd_kron")]
SHARED_BY_AUTO += [("adamw", 1), ("sophia_g", 1)]


def test_auto_shares_the_work_of_matrix_methods_alone_and_changes_no_identity(tiny):
    wide = ["--model.n_embd", "128"]
    for name, expected in SHARED_BY_AUTO:
        config = resolve(load([*tiny, *wide, "--optimizer.name", name]))
        with torch.device("meta"):
            groups = GPT(config.model).parameter_groups()
            assert optimizer_of(config, groups, 0, 2).ranks == expected, name
            assert optimizer_of(config, groups, 0, 1).ranks == 1
        for setting in ("true", "false"):
            given = [*tiny, *wide, "--optimizer.name", name, "--train.shard_optimizer", setting]
            assert resolve(load(given)).identity == config.identity


def test_a_gradient_that_is_not_finite_is_refused_on_every_rank():
    """Also on one that does not own the parameter: otherwise the others would wait for ever."""
    params = [torch.nn.Parameter(torch.ones(4)) for _ in range(2)]
    for rank in (0, 1):
        optimizer = Owned(build_optimizer("adamw", params), rank, 2)
        params[0].grad, params[1].grad = torch.ones(4), torch.tensor([1.0, 1.0, torch.nan, 1.0])
        with pytest.raises(RuntimeError, match="gradient of parameter 1 of group 0 is not finite"):
            optimizer.step()
        assert all(p.grad is not None and p.tolist() == [1.0] * 4 for p in params)


def test_a_sparse_gradient_is_refused_on_every_rank():
    params = [torch.nn.Parameter(torch.ones(4, 2)) for _ in range(2)]
    for rank in (0, 1):
        optimizer = Owned(build_optimizer("sgd", params), rank, 2)
        params[0].grad, params[1].grad = torch.ones(4, 2), torch.ones(4, 2).to_sparse()
        with pytest.raises(RuntimeError, match=r"ranks cannot share .* sparse gradient; give "):
            optimizer.step()
