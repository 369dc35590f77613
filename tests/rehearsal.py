"""Rehearse a GPU on a CPU: tensors pretend to live on cuda:0, mixed devices are faults, waits for the GPU are counted.

    python -m tests.rehearsal            # the table of benchmarks/README.md

Values are computed on the CPU, so a rehearsed run must have the numbers of a run on the CPU to the last bit. The
storage of a tensor remembers the device where it would lie, so views, detached and saved tensors share it. One mode
stands in for what Python asks and orders (`.device`, `.to`, `device=`); a second one sees every operation, those of
autograd's backward too.

A fault is an operation on two devices, a CPU generator for a CUDA tensor, or `.numpy()` of one. A wait is whatever
makes the CPU wait until the GPU has finished its queue: a value that is read, a shape that depends on values, a copy
that blocks. PyTorch's copies between CPU and GPU block unless non_blocking is given.

It rehearses one process in fp32, without FSDP2 and NCCL. It shows neither memory nor speed. It cannot see a wait inside
a kernel that only a GPU has.
"""

import sys
import tempfile
from collections import Counter
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Iterator
from unittest.mock import patch

import torch
from torch.nn.utils import clip_grad
from torch.overrides import TorchFunctionMode
from torch.utils import checkpoint
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import critics
import rollout
import train
from engine import distributed, generation, models
from tests.runs import ROOT

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
TORCH = str(Path(torch.__file__).parent)
PACKAGES = str(Path(torch.__file__).parent.parent)  # may lie inside ROOT, in a virtual environment
# operations whose result, or its shape, the CPU has to know; index operations are looked at one by one
READS = {"_local_scalar_dense", "equal", "is_nonzero", "nonzero", "masked_select", "_unique", "_unique2", "unique_dim",
         "unique_consecutive", "bincount", "repeat_interleave", "linalg_eig", "_linalg_check_errors"}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
COPIES = {"copy_", "_copy_from", "_foreach_copy_", "set_"}
# where a wait belongs, and of what there are many there: the finer one first
PLACES = {
    "generate_responses": ("sampled token", "call of generate"),
    "update_model": ("micro-batch of an update", "optimizer step"),
    "score_responses": ("scored micro-batch", "scoring pass"),
    "train_step": ("step",),
}


def device_of(x: torch.Tensor) -> torch.device:
    """Return the device where a tensor would lie."""
    return getattr(x.untyped_storage(), "rehearsed", CPU)


def put(x: torch.Tensor, device: torch.device) -> torch.Tensor:
    x.untyped_storage().rehearsed = device
    return x


def named(device) -> torch.device:
    device = torch.device("cuda", device) if isinstance(device, int) else torch.device(device)
    return CUDA if device.type == "cuda" else device


def tensors_in(*parts) -> list[torch.Tensor]:
    return [x for x in tree_leaves(parts) if isinstance(x, torch.Tensor)]


def is_ours(file: str) -> bool:
    """Return whether code is of this repo, and not of the rehearsal itself."""
    return file.startswith(str(ROOT)) and not file.startswith(PACKAGES) and file != __file__


class Record:
    """What a rehearsal has found."""

    def __init__(self):
        self.faults: list[str] = []
        self.waits: Counter[tuple[str, str, str]] = Counter()  # (function of PLACES, where, what for) -> times
        self.units: Counter[str] = Counter()  # such as sampled token -> times
        self.on = True

    def fault(self, what: str) -> None:
        self.faults.append(f"{self.here()[1]}: {what}")

    def wait(self, what: str) -> None:
        if self.on:
            self.waits[(*self.here(), what)] += 1

    def here(self) -> tuple[str, str]:
        """Return which of PLACES is running, and the innermost functions of a library and of this repo."""
        frame, found, library = sys._getframe(2), "", ""
        while frame:
            code = frame.f_code
            if is_ours(code.co_filename):
                found = found or f"{Path(code.co_filename).relative_to(ROOT)}: {code.co_qualname.split('.<')[0]}"
                if code.co_name in PLACES:
                    break
            elif not (found or library or code.co_filename.startswith((TORCH, __file__, "<"))):
                library = f"{code.co_filename.split('site-packages/')[-1]}: {code.co_qualname}, from "
            frame = frame.f_back
        return frame.f_code.co_name if frame else "", library + found

    def rates(self) -> list[tuple[str, float, str, str]]:
        """Return the waits as (unit, waits for each unit, where, what for), the finest units first."""
        rows = []
        for (place, where, what), times in self.waits.items():
            units = PLACES.get(place, ("run",))
            unit = next((u for u in units if times >= self.units[u] > 0), units[-1])
            rows.append((unit, times / max(1, self.units[unit]), where, what))
        order = [unit for units in PLACES.values() for unit in units] + ["run"]
        return sorted(rows, key=lambda row: (order.index(row[0]), -row[1], row[2:]))

    def per_unit(self) -> dict[str, float]:
        """Return all waits for each unit."""
        totals = Counter()
        for unit, rate, _, _ in self.rates():
            totals[unit] += rate
        return dict(totals)


class Operations(TorchDispatchMode):
    """Sees every operation, also inside functions of torch and in backward."""

    def __init__(self, record: Record):
        super().__init__()
        self.record = record

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        inputs = tensors_in(args, kwargs)
        # a number on the CPU may meet anything
        devices = {device_of(x) for x in inputs if x.dim() or device_of(x) == CUDA}
        on_gpu = CUDA in devices
        if name in INDEXING and on_gpu:
            self.check_index(name, args)
        elif name in COPIES:
            if len(devices) > 1 and not (kwargs.get("non_blocking") or args[2:3] == (True,)):
                self.record.wait("copy between CPU and GPU")
        elif len(devices) > 1:
            self.record.fault(f"{name} of " + ", ".join(f"{device_of(x)} {list(x.shape)}" for x in inputs))
        elif on_gpu and name in READS and "output_size" not in kwargs:
            self.record.wait("a value is read" if name == "_local_scalar_dense" else name)
        out = func(*args, **kwargs)
        if on_gpu and not func._schema.is_mutable:
            for x in tensors_in(out):
                put(x, CUDA)
        return out

    def check_index(self, name: str, args: tuple) -> None:
        """CUDA tensors take indices on the CPU, by a copy that blocks; CPU tensors take none on the GPU."""
        me, indices, values = args[0], tensors_in(args[1]), tensors_in(args[2:3])
        if any(device_of(i) != device_of(me) == CPU for i in indices):
            self.record.fault(f"{name} of a CPU tensor by indices on the GPU")
        if any(x.dim() and device_of(x) != device_of(me) for x in values):
            self.record.fault(f"{name} of a {device_of(me)} tensor with values on {device_of(values[0])}")
        for i in indices:
            if device_of(i) != device_of(me):
                self.record.wait("indices are copied to the GPU")
            elif i.dtype == torch.bool and device_of(me) == CUDA:
                self.record.wait("a mask selects")


class Interface(TorchFunctionMode):
    """Answers what Python asks of devices, and follows orders that name one."""

    def __init__(self, record: Record):
        super().__init__()
        self.record = record

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs, name, owner = dict(kwargs or {}), getattr(func, "__name__", ""), getattr(func, "__self__", None)
        if name == "__get__" and owner is torch.Tensor.device:
            return func(*args) if func(*args).type == "meta" else device_of(args[0])
        if name == "__get__" and owner is torch.Tensor.is_cuda:
            return device_of(args[0]) == CUDA
        if name in ("to", "cpu", "cuda") and isinstance(args[0], torch.Tensor):
            return self.move(func, name, args, kwargs)
        if name in ("numpy", "__array__") and device_of(args[0]) == CUDA:
            self.record.fault(f"{name} of a CUDA tensor")
        if name == "tolist" and device_of(args[0]) == CUDA:
            self.record.wait("a value is read")
        target = kwargs.get("device")
        target = target if target is None else named(target)
        if target == CUDA:
            kwargs["device"] = CPU
            if name in ("tensor", "as_tensor", "asarray"):
                self.record.wait("copy between CPU and GPU")
        if kwargs.get("generator") is not None:
            # no generator of a GPU is rehearsed: torch would refuse this one
            if CUDA in {target, *map(device_of, tensors_in(args))}:
                self.record.fault(f"{name} of a CUDA tensor with a CPU generator")
        out = func(*args, **kwargs)
        if target == CUDA:
            put(out, CUDA)
        return out

    def move(self, func, name: str, args: tuple, kwargs: dict):
        """Do .to(…), .cpu() or .cuda(): the change of type for real, the change of device in pretence."""
        x, rest = args[0], list(args[1:])
        source = device_of(x)
        order = {"cpu": CPU, "cuda": CUDA}.get(name) or kwargs.get("device")
        if name != "to":
            rest, kwargs = [], {key: value for key, value in kwargs.items() if key == "non_blocking"}
        if rest and isinstance(rest[0], torch.Tensor):
            order, rest[0] = device_of(rest[0]), rest[0].dtype
        elif rest and (rest[0] is None or isinstance(rest[0], (str, int, torch.device))):
            order = rest.pop(0)
        target = source if order is None else named(order)
        if "meta" in (x.device.type, target.type):
            return func(*args, **kwargs)
        kwargs.pop("device", None)
        flags = [each for each in rest if isinstance(each, bool)]  # non_blocking, copy
        if target != source and not (kwargs.get("non_blocking") or any(flags[:1])):
            self.record.wait("copy between CPU and GPU")
        rest = [each for each in rest if each is not None and not isinstance(each, bool)]
        out = x.to(*rest, **kwargs) if rest or kwargs else x
        out = out.clone() if out is x and any(flags[1:]) else out
        if target != source:
            out = put(out.clone() if out is x else out, target)
        return out


def counted(record: Record, unit: str, function):
    def count(*args, **kwargs):
        record.units[unit] += record.on
        return function(*args, **kwargs)
    return count


@contextmanager
def rehearse() -> Iterator[Record]:
    """Everything inside runs on a GPU that is not there. -> what is found

    If a run of train.py is inside, waits are counted in its steps only.
    """
    record, world_on_cpu = Record(), distributed.World
    train_step, interface = train.train_step, Interface(record)
    run_backward, grouped = torch.autograd._engine_run_backward, clip_grad._group_tensors_by_device_and_dtype

    def backward(*args, **kwargs):
        with interface:  # off while torch's backward() runs, but activations are recomputed there
            return run_backward(*args, **kwargs)

    def step(*args):
        if not record.units["step"]:
            record.waits.clear()
            record.units.clear()
        record.on = True
        record.units["step"] += 1
        try:
            return train_step(*args)
        finally:
            record.on = False

    def group(lists):  # C++ sees the CPU
        return {(device_of(found[0][0][0]), dtype): found for (_, dtype), found in grouped(lists).items()}

    patches = [
        patch.object(distributed, "World", lambda rank, size, _, mesh: world_on_cpu(rank, size, CUDA, mesh)),
        patch.object(train, "train_step", step),
        patch("torch.autograd._engine_run_backward", backward),
        # the hook that keeps a tensor runs inside an operation, where .device is the CPU
        patch.dict(checkpoint._allowed_determinism_checks_to_fns, default=lambda x: (x.shape, x.dtype, device_of(x))),
        patch.object(clip_grad, "_group_tensors_by_device_and_dtype", group),
        patch("torch.cuda.synchronize", lambda: record.wait("synchronize")),
        patch("torch.cuda.mem_get_info", lambda *_: (80 * 2**30, 80 * 2**30)),
        patch("torch.cuda.max_memory_allocated", lambda *_: 0),
        patch("torch.cuda.reset_peak_memory_stats", lambda: None),
    ]
    for unit, owner, name in (
            ("sampled token", generation.Stops, "__call__"), ("call of generate", generation.Stops, "__init__"),
            ("micro-batch of an update", models.Actor, "loss"), ("micro-batch of an update", models.MiniCritic, "loss"),
            ("scored micro-batch", models.Actor, "score"), ("scored micro-batch", models.MiniCritic, "score"),
            ("scoring pass", rollout, "score_responses"), ("scoring pass", critics, "score_responses"),
            ("optimizer step", torch.optim.AdamW, "step")):
        patches.append(patch.object(owner, name, counted(record, unit, getattr(owner, name))))
    with ExitStack() as stack:
        for each in patches:
            stack.enter_context(each)
        stack.enter_context(interface)
        stack.enter_context(Operations(record))
        yield record


def table(record: Record) -> str:
    lines = ["| for each | waits | where | what for |", "| --- | ---: | --- | --- |"]
    return "\n".join(lines + [f"| {unit} | {rate:.3g} | {where} | {what} |"
                              for unit, rate, where, what in record.rates()])


def main() -> None:
    """Print the waits of two steps of AsyPPO with the embedded default, in small micro-batches."""
    with tempfile.TemporaryDirectory() as folder, rehearse() as record:
        code = train.main(f"--steps 2 --prompts-per-step 4 --group-size 8 --token-budget 256 --minibatch-size 16 "
                          f"--generate-batch 16 --dtype fp32 --eval-data  --eval-every 0 --save-every 0 "
                          f"--out {folder}/run".split(" "))
    print(table(record))
    print({unit: n for unit, n in record.units.items()}, file=sys.stderr)
    sys.exit(code or bool(record.faults))


if __name__ == "__main__":
    main()
