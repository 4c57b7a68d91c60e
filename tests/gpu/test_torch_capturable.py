"""Steps for CUDA graphs: their number lies on the device, bits are those of other steps, and nothing is read back."""

import copy
import io
from typing import Any

import pytest
import torch
from torch.nn import Parameter
from torch.utils._python_dispatch import TorchDispatchMode

from qloracle.errors import ArgumentTypeError, ArgumentValueError
from qloracle_gpu.torch.optim import AdamW, AdamW8bit, PagedAdamW, capturing
from qloracle_gpu.torch.optim.capturing import LARGEST_BETA, correction_tables
from qloracle_gpu.torch.optim.options import AdamwOptions, step_constants

from .step_judging import FORMATS, require_same_bits
from .test_torch_optimizers import EIGHT, HOW, SHAPES, give_gradients, parameters, require_same, train

CPU = torch.device("cpu")
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "32 bits": (AdamW, HOW),
    "8 bits": (AdamW8bit, HOW | EIGHT),
    "limited": (AdamW, HOW | {"max_update_norm": 0.25}),
    "limited, 8 bits": (AdamW8bit, HOW | EIGHT | {"max_update_norm": 0.25, "nonfinite": "skip"}),
}
needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="NOT RUN: no CUDA device")


@pytest.mark.parametrize("lr_is_tensor", [False, True])
@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_bits_are_those_of_steps_that_the_host_counts(kind: str, fmt: str, lr_is_tensor: bool) -> None:
    made, how = KINDS[kind]
    plain, captured = parameters(fmt), parameters(fmt)
    lr = torch.tensor(how["lr"], dtype=torch.float64) if lr_is_tensor else how["lr"]
    first, second = made(plain, **how), made(captured, **how | {"lr": lr}, capturable=True)
    require_same(train(second, captured, range(3)), train(first, plain, range(3)))
    for p, q in zip(plain, captured, strict=True):
        state = second.state[q]
        assert (state["step"].dtype, state["step"].tolist()) == (torch.int64, first.state[p]["step"])
        for key in state.keys() - {"step", "block_size"}:
            require_same_bits(state[key], first.state[p][key], key)


def test_a_long_run_counts_past_the_steps_whose_corrections_are_exact() -> None:
    plain, captured = [Parameter(torch.ones(3))], [Parameter(torch.ones(3))]
    first, second = AdamW(plain, **HOW), AdamW(captured, **HOW, capturable=True)
    for step in range(300):
        train(first, plain, range(step, step + 1))
        require_same(train(second, captured, range(step, step + 1)), [plain[0].detach()])


@pytest.mark.parametrize(
    ("beta1", "beta2"), [(0.9, 0.999), (0.0, 0.5), (0.3, 0.0), (0.95, 0.9999), (2.0**-126, 1 - 2.0**-7)]
)
def test_tables_hold_the_constants_of_every_step(beta1: float, beta2: float) -> None:
    options = AdamwOptions(lr=0.3, beta1=beta1, beta2=beta2, weight_decay=0.01)
    tables, lr = correction_tables(options, CPU), torch.tensor(0.3, dtype=torch.float64)
    length = tables.first.numel()
    for step in (*range(1, 130), *range(150, length + 50, max(1, length // 200)), length, length + 1, 10**9):
        wanted = step_constants(options, step)
        for given in (None, lr):
            found = tables.constants(options, torch.tensor(step - 1), given)
            got = [float(value) for value in (found.root, found.rate, found.correction, found.decay)]
            assert got == [wanted.root, wanted.rate, wanted.correction, wanted.decay], f"step {step}"
            assert (found.beta1, found.gain1, found.eps) == (wanted.beta1, wanted.gain1, wanted.eps)


@pytest.mark.parametrize("kind", KINDS)
def test_no_value_is_read_on_the_host(kind: str) -> None:
    made, how = KINDS[kind]
    p = Parameter(torch.empty(40, 16, dtype=torch.bfloat16, device="meta"))  # holds nothing that could be read
    p.grad = torch.empty_like(p)
    for lr in (0.1, torch.empty((), dtype=torch.float64, device="meta")):
        optimizer = made([p], **how | {"lr": lr}, capturable=True)
        for _ in range(2):
            optimizer.step()
        assert optimizer.state[p]["step"].device.type == "meta"
    with pytest.raises(RuntimeError, match="meta"):
        optimizer.state_dict()["state"][0]["step"].item()


class Recorded(TorchDispatchMode):
    """Lists the operations of torch by name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", KINDS)
def test_every_step_but_the_first_makes_the_same_operations_so_that_a_graph_of_one_stands_for_all(kind: str) -> None:
    made, how = KINDS[kind]
    tensors = [Parameter(torch.empty_like(p, device="meta")) for p in parameters("float16")]
    optimizer, found = made(tensors, **how, capturable=True), []
    for _ in range(4):
        for p in tensors:
            p.grad = torch.empty_like(p)
        with Recorded() as seen:
            optimizer.step()
        found.append(seen.names)
    assert found[1].count("index_select") >= 2 * len(SHAPES), "the corrections were not looked up"
    assert found[1] == found[2] == found[3], "an operation depends on the number of the step"


def test_a_learning_rate_on_the_device_is_read_in_every_step() -> None:
    plain, captured = parameters("float32"), parameters("float32")
    lr = torch.tensor(0.0, dtype=torch.float64)
    first, second = AdamW(plain, lr=0.0), AdamW(captured, lr=lr, capturable=True)
    for step, rate in enumerate((0.1, 0.03, 0.0, 1 / 3)):
        first.param_groups[0]["lr"] = rate
        lr.fill_(rate)
        require_same(*(train(*pair, range(step, step + 1)) for pair in ((second, captured), (first, plain))))


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("after", [False, True])
def test_states_pass_between_steps_of_either_kind(before: bool, after: bool) -> None:
    made, how = KINDS["8 bits"]
    tensors, others = parameters("bfloat16"), parameters("bfloat16")
    optimizer, whole = made(tensors, **how, capturable=before), made(others, **how)
    train(optimizer, tensors, range(3))
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    resumed = made(tensors, **how, capturable=after)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert resumed.param_groups[0]["capturable"] is after, "how steps are counted is a matter of the run"
    found, wanted = train(resumed, tensors, range(3, 6)), train(whole, others, range(6))
    require_same(found, wanted)
    assert isinstance(resumed.state[tensors[0]]["step"], torch.Tensor) is after
    copied = copy.deepcopy(resumed)
    assert int(copied.state[copied.param_groups[0]["params"][0]]["step"]) == 6


def test_a_file_that_says_nothing_of_captures_is_taken() -> None:
    tensors = parameters("float32")
    optimizer = AdamW(tensors, **HOW)
    train(optimizer, tensors, range(2))
    saved = optimizer.state_dict()
    for group in saved["param_groups"]:
        del group["capturable"]
    resumed = AdamW(tensors, **HOW, capturable=True)
    resumed.load_state_dict(saved)
    give_gradients(tensors, 3)
    resumed.step()
    assert resumed.state[tensors[0]]["step"].tolist() == 3


WRONG: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "no flag": ({"capturable": 1}, ArgumentTypeError, "capturable must be"),
    "stochastic": (
        {"capturable": True, "stochastic_rounding": True},
        ArgumentValueError,
        "stochastic_rounding must be F",
    ),
    "a long table": (
        {"capturable": True, "betas": (0.9, 1 - 2.0**-20)},
        ArgumentValueError,
        "beta2 must be at most 0.99",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_captured_is_refused_at_the_door(name: str) -> None:
    how, kind, message = WRONG[name]
    for made in (AdamW, AdamW8bit):
        with pytest.raises(kind, match=message):
            made(parameters("bfloat16"), **how)
    assert LARGEST_BETA > 0.99999
    with pytest.raises(TypeError, match="capturable"):
        PagedAdamW(parameters("float32"), capturable=True)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("lr", "kind", "message"),
    [
        (torch.tensor(1), ArgumentTypeError, "lr must be a number, or a tensor of float32 or float64"),
        (torch.ones(2), ArgumentValueError, "lr must be one number on cpu, got 2 on cpu"),
        (torch.empty((), device="meta"), ArgumentValueError, "lr must be one number on cpu, got 1 on meta"),
    ],
)
def test_a_learning_rate_that_is_no_number_on_the_device_is_refused_before_anything_moves(
    lr: torch.Tensor, kind: type[Exception], message: str
) -> None:
    tensors = parameters("float32")
    optimizer, before = AdamW(tensors, lr=lr, capturable=True), [p.detach().clone() for p in tensors]
    give_gradients(tensors, 0)
    with pytest.raises(kind, match=message):
        optimizer.step()
    require_same([p.detach() for p in tensors], before)
    assert not optimizer.state


def test_a_capture_that_would_go_wrong_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = parameters("float32")
    give_gradients(tensors, 0)
    plain, new, used = (AdamW(tensors, **HOW, capturable=flag) for flag in (False, True, True))
    plain.step()
    used.step()
    monkeypatch.setattr(capturing, "is_capturing", lambda: True)
    with pytest.raises(ArgumentValueError, match="capturable must be True for every group of a step that is captured"):
        plain.step()
    with pytest.raises(ArgumentValueError, match="step must be made at least once before a capture: states"):
        new.step()
    used.param_groups[0]["betas"] = (0.5, 0.5)
    with pytest.raises(ArgumentValueError, match="before a capture: tables of bias corrections"):
        used.step()
    used.param_groups[0]["betas"] = HOW["betas"]
    used.step()
    assert used.state[tensors[0]]["step"].tolist() == 2


@needs_cuda
@pytest.mark.parametrize("kind", KINDS)
def test_replays_of_a_graph_are_steps(kind: str) -> None:
    made, how = KINDS[kind]
    plain, captured = ([Parameter(p.detach().cuda()) for p in parameters("bfloat16")] for _ in range(2))
    lr = torch.tensor(how["lr"], dtype=torch.float64, device="cuda")
    first, second = made(plain, **how), made(captured, **how | {"lr": lr}, capturable=True)
    for p, q in zip(plain, captured, strict=True):
        q.grad = torch.randn_like(q)
        p.grad = q.grad.clone()
    first.step()
    second.step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        second.step()
    for rate in (0.03, 0.01, 0.1):
        first.param_groups[0]["lr"] = rate
        lr.fill_(rate)
        graph.replay()
        first.step()
        require_same([p.detach().cpu() for p in captured], [p.detach().cpu() for p in plain])
    assert second.state[captured[0]]["step"].item() == 4
