"""Compiled gradient steps against those that are not."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from small_agents import FALLS
from tensordict import TensorDict
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch._inductor import config as inductor

from lit_mbrl.algorithms import MBPO, MPPVE, SAC, Agent
from lit_mbrl.allocator import forget_earlier_runs
from lit_mbrl.compilation import Compiler, _Compiled, gradient, set_gradients
from lit_mbrl.dynamics import Dynamics, fit

S, A, B = 4, 2, 12
SMALL = {
    "dynamics_hidden_sizes": [8],
    "dynamics_weight_decay": [1e-4, 1e-4],
    "dynamics_networks": 3,
    "dynamics_elites": 2,
}
AGENTS: dict[str, Callable[[], Agent]] = {
    "SAC": lambda: SAC(S, A, hidden_sizes=[8, 8]),
    "MBPO": lambda: MBPO(S, A, "never", hidden_sizes=[8, 8], **SMALL),
    # Of its plans half end at the first step, and the last action carries no gradient.
    "MPPVE": lambda: MPPVE(S, A, FALLS, plan_length=3, hidden_sizes=[8, 8], **SMALL),
}


DEVICES = ["cpu"] + ["cuda"] * torch.cuda.is_available()


@pytest.fixture(autouse=True)
def forgotten() -> None:
    """What other tests have compiled."""
    torch.compiler.reset()


def batch(length: int) -> TensorDict:
    updates = 3  # on a GPU the second is captured, the third runs what was captured
    return TensorDict(
        {
            "observation": torch.randn(updates, B, S),
            "action": torch.rand(updates, B, length, A) * 2 - 1,
            "reward": torch.randn(updates, B, length),
            "mask": torch.ones(updates, B, length, dtype=torch.bool),
            "next": {
                "observation": torch.randn(updates, B, S),
                "terminated": torch.rand(updates, B) < 0.2,
            },
        },
        batch_size=[updates, B],
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("bf16", [False, True], ids=["float32", "bf16-mixed"])
@pytest.mark.parametrize("name", AGENTS)
def test_an_environment_step_learns_the_same(
    name: str,
    bf16: bool,
    device: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From the same weights and draws, to rounding; three steps, so that optimizers agree too."""
    agents = []
    for compiles in (False, True):
        torch.manual_seed(0)
        agent = AGENTS[name]().to(device)
        agent.configure_optimizers()
        agent.expect_batches(4, B - 4)
        agent.compiler.enabled = compiles
        monkeypatch.setattr(agent, "log_step", lambda **metrics: None)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=bf16, cache_enabled=False):
            for _ in range(3):
                agent.training_step(batch(agent.plan_length).to(device), 0)
        agents.append(agent)
    printed = capsys.readouterr()
    assert printed.out.count("compiled the ") == 3 + (name == "MPPVE") and not printed.err
    tolerance = 3e-3 if bf16 else 1e-5  # three learning rates' steps are 9e-4
    for ours, other in zip(*(agent.parameters() for agent in agents), strict=True):
        torch.testing.assert_close(ours, other, atol=tolerance, rtol=0)


@pytest.mark.parametrize("device", DEVICES)
def test_a_fit_is_the_same(device: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Its last minibatches, of another size, too; on a GPU with a group of updates and two more."""
    rows = 410  # 328 of them to fit: ten minibatches and a quarter of one
    found = []
    for compiles in (False, True):
        torch.manual_seed(0)
        dynamics = Dynamics(S, A, "never", [8], [1e-4, 1e-4], networks=3, elites=2)
        dynamics.to(device).compiler.enabled = compiles
        data = TensorDict(
            {
                "observation": torch.randn(rows, S),
                "action": torch.rand(rows, A),
                "reward": torch.randn(rows),
                "next": {
                    "observation": torch.randn(rows, S),
                    "terminated": torch.zeros(rows, dtype=torch.bool),
                },
            },
            batch_size=[rows],
        )
        data = data.to(device)
        report = fit(dynamics, dynamics.optimizer(), data, batch_size=32, patience=2)
        found.append((report.epochs, [p.detach() for p in dynamics.parameters()]))
    printed = capsys.readouterr()
    assert "compiled the dynamics' update in" in printed.out and not printed.err
    assert found[0][0] == found[1][0]
    torch.testing.assert_close(found[0][1], found[1][1], atol=1e-5, rtol=1e-4)


class Quadratic(nn.Module):
    """An objective whose gradient is known, and that counts how often Python runs it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([1.0, 2.0]))
        self.unused = nn.Parameter(torch.zeros(()))

    def loss(self, x: Tensor, power: int) -> tuple[Tensor, Tensor]:
        value = (x @ self.weight) ** power
        return value.sum(), value


def test_other_shapes_and_numbers_are_right() -> None:
    """A function for each."""
    module, compiler = Quadratic(), Compiler()
    compiler.enabled = True
    parameters = list(module.parameters())
    for rows in (3, 5, 3):
        for power in (2, 3):
            x = torch.randn(rows, 2)
            (loss, value), (found, unused) = compiler.gradient(
                "q", module.loss, parameters, x, power
            )
            inner = x @ module.weight.detach()
            torch.testing.assert_close(value, inner**power)
            torch.testing.assert_close(loss, (inner**power).sum())
            by_hand = (power * inner ** (power - 1)) @ x
            torch.testing.assert_close(found, by_hand)
            assert unused is None and not loss.requires_grad and not value.requires_grad


class Scaled(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(torch.eye(2))

    def loss(self, x: Tensor) -> Tensor:
        return self.scale * (x @ self.weight).sum()


def test_modules_precisions_and_numbers_that_change_are_told_apart() -> None:
    """Of one class, whose code is one, and of which torch looks up little at each call."""
    compiler = Compiler()
    compiler.enabled = True
    modules = [Scaled(1.0), Scaled(2.0)]
    x = torch.tensor([[1 + 2**-12, 1.0]])  # which bfloat16 rounds to 1
    for turn in range(2):
        for module in modules:
            module.scale += 10 * turn
            for bf16 in (False, True):
                module.weight.data += 1
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16, cache_enabled=False):
                    (loss,), (found,) = compiler.gradient("scaled", module.loss, [module.weight], x)
                seen = x.bfloat16().float() if bf16 else x
                expected = module.scale * seen.T.expand(2, 2)
                torch.testing.assert_close(found.float(), expected, rtol=1e-6, atol=0)
                assert loss.item() == pytest.approx((expected * module.weight).sum().item())


def test_without_a_compiler_one_line_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One for all functions, each of which would fail after a while."""
    monkeypatch.setattr(_Compiled, "impossible", False)  # and false again after the test
    module, compiler = Quadratic(), Compiler()
    compiler.enabled = True
    x = torch.randn(7, 2)
    parameters = list(module.parameters())
    with inductor.patch({"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True}):
        for name in ("q", "q", "another"):
            found = compiler.gradient(name, module.loss, parameters, x, 2)
            torch.testing.assert_close(found, gradient(module.loss, parameters, x, 2))
    told = capsys.readouterr().err
    assert told.count("nothing can be compiled here, and all runs without: ") == 1
    assert "could not be compiled" not in told


def test_what_cannot_be_compiled_alone_runs_alone_without(
    capsys: pytest.CaptureFixture[str],
) -> None:
    module, compiler = Quadratic(), Compiler()
    compiler.enabled = True
    x, parameters = torch.randn(7, 2), list(module.parameters())

    def uncompilable(x: Tensor) -> Tensor:
        with suppress(OSError):
            Path("nothing here").stat()
        return module.loss(x, 2)

    for _ in range(2):
        found = compiler.gradient("odd", uncompilable, parameters, x)
        torch.testing.assert_close(found, gradient(module.loss, parameters, x, 2))
        compiler.gradient("q", module.loss, parameters, x, 2)
    told = capsys.readouterr()
    assert told.err.count("odd could not be compiled and runs without: ") == 1
    assert told.out.count("compiled q in") == 1


def test_a_transposed_gradient_steps_the_weights_that_it_is_of() -> None:
    torch.manual_seed(0)
    weight, naive = (torch.nn.Parameter(torch.zeros(3, 5)) for _ in range(2))
    target = torch.randn(3, 5)
    fused, plain = (
        torch.optim.Adam([w], lr=0.1, fused=f) for w, f in ((weight, True), (naive, False))
    )
    for _ in range(10):
        part = (weight.detach() - target).T.contiguous().T
        assert part.stride() == (1, 3)
        set_gradients([weight], [part])
        naive.grad = naive.detach() - target
        fused.step()
        plain.step()
    torch.testing.assert_close(weight, naive)


def test_what_earlier_runs_compiled_is_forgotten() -> None:
    """A process that goes on from checkpoints again and again keeps the code of none before."""
    counted = CompileCounter()
    doubled = torch.compile(lambda x: 2 * x, backend=counted)
    for _ in range(2):
        doubled(torch.ones(3))
    assert counted.frame_count == 1
    forget_earlier_runs()
    doubled(torch.ones(3))
    assert counted.frame_count == 2
