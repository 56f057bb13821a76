"""One program of the loss, one repetition whenever a line arrives; started by `loss.py`.

    PYTHON loss_worker.py {lattice,loss} PROGRAM INPUTS.npz NUM_THREADS

Runs under the Python of the program, so it is written for Python 3.9 and torch 1.13 too, and
imports k2 or snowmelt only where its program asks for it. It answers every line with a line of
JSON. `run`: wall_ms, processor_ms of one repetition; `memory`: peak_mib above the start, of one
repetition; `save PATH [OTHER.npz]`: losses and gradients into an .npz, in the band of another's
if there is one (near-ties put some frames of it elsewhere); anything else: nothing.
"""

import json
import re
import sys
import time

import numpy as np
import torch

LM_SCALE, SIMPLE_SCALE, S_RANGE = 0.25, 0.5, 5


def main():
    """Answer lines until there are no more."""
    what, program, path, num_threads = sys.argv[1:]
    torch.set_num_threads(int(num_threads))
    inputs = {name: torch.from_numpy(array) for name, array in np.load(path).items()}
    load_compiled_loops(program)
    step = lattice_step(program, inputs) if what == "lattice" else loss_step(program, inputs)
    for line in sys.stdin:
        print(json.dumps(answer(line.split(), step)), flush=True)


def load_compiled_loops(program):
    """Their library is no memory of the loss, as little as k2's is."""
    if program.startswith("snowmelt"):
        from snowmelt.loss.recursion import mutual_information_recursion

        mutual_information_recursion(torch.zeros(1, 1, 3), torch.zeros(1, 2, 2))


def answer(words, step):
    """What one line gets."""
    if words[0] == "run":
        wall, processor = time.perf_counter(), time.process_time()
        step()
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        return {"wall_ms": 1000 * wall, "processor_ms": 1000 * processor}
    if words[0] == "memory":
        before = memory_mib("VmRSS")
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")  # the peak starts anew
        step()
        return {"peak_mib": memory_mib("VmHWM") - before}
    if words[0] == "save":
        ranges = None
        if len(words) > 2:
            with np.load(words[2]) as other:
                ranges = torch.from_numpy(other["ranges"]) if "ranges" in other else None
        np.savez(words[1], **{name: tensor.numpy() for name, tensor in step(ranges).items()})
    return {}


def memory_mib(key):
    """A line of /proc/self/status."""
    with open("/proc/self/status") as file:
        return int(re.search(key + r":\s*(\d+) kB", file.read()).group(1)) / 1024


def lattice_step(program, inputs):
    """Scores and occupations of px, py."""
    px, py, boundary = inputs["px"], inputs["py"], inputs["boundary"]
    if program == "k2":
        import k2

        recursion = k2.mutual_information_recursion
    elif program == "torch operations":
        from snowmelt.loss.lattice.reference import reference_forward_backward
    else:
        from snowmelt.loss.recursion import mutual_information_recursion as recursion

    def step(ranges=None):
        if program == "torch operations":
            scores, px_grad, py_grad = reference_forward_backward(px, py, boundary)
        else:
            scores, (px_grad, py_grad) = recursion(px, py, boundary, return_grad=True)
        return {"scores": scores, "px_grad": px_grad, "py_grad": py_grad}

    return step


def loss_step(program, inputs):
    """Both losses and the gradients of all weights and of encoder and decoder output."""
    boundary, symbols = inputs.pop("boundary"), inputs.pop("symbols")
    learned = {name: tensor.requires_grad_() for name, tensor in inputs.items()}
    losses = k2_losses if program == "k2" else snowmelt_losses

    def step(ranges=None):
        for tensor in learned.values():
            tensor.grad = None
        simple, pruned, ranges = losses(program, learned, symbols, boundary, ranges)
        (SIMPLE_SCALE * simple + pruned).backward()
        result = {name: tensor.grad for name, tensor in learned.items()}
        result.update(simple=simple.detach(), pruned=pruned.detach(), ranges=ranges)
        return result

    return step


def linear(x, layer, inputs):
    """A linear layer of the inputs."""
    return torch.nn.functional.linear(x, inputs[layer + ".weight"], inputs[layer + ".bias"])


def simple_scores(inputs):
    """The two projections of the simple joiner."""
    return (
        linear(inputs["decoder_out"], "simple_lm", inputs),
        linear(inputs["encoder_out"], "simple_am", inputs),
    )


def k2_losses(program, inputs, symbols, boundary, ranges):
    """As training with k2 computes them."""
    import k2

    lm, am = simple_scores(inputs)
    simple, (px_grad, py_grad) = k2.rnnt_loss_smoothed(
        lm=lm,
        am=am,
        symbols=symbols,
        termination_symbol=0,
        lm_only_scale=LM_SCALE,
        am_only_scale=0.0,
        boundary=boundary,
        reduction="sum",
        return_grad=True,
    )
    own = k2.get_rnnt_prune_ranges(
        px_grad=px_grad, py_grad=py_grad, boundary=boundary, s_range=S_RANGE
    )
    ranges = own if ranges is None else ranges
    am_pruned, lm_pruned = k2.do_rnnt_pruning(
        am=linear(inputs["encoder_out"], "encoder_proj", inputs),
        lm=linear(inputs["decoder_out"], "decoder_proj", inputs),
        ranges=ranges,
    )
    logits = linear(torch.tanh(am_pruned + lm_pruned), "output_linear", inputs)
    pruned = k2.rnnt_loss_pruned(
        logits=logits,
        symbols=symbols,
        ranges=ranges,
        termination_symbol=0,
        boundary=boundary,
        reduction="sum",
    )
    return simple, pruned, own


def snowmelt_losses(program, inputs, symbols, boundary, ranges):
    """As training computes them; `torch operations` is autograd through ordinary operations."""
    from snowmelt.loss import rnnt

    lm, am = simple_scores(inputs)
    if program == "torch operations":
        arcs = rnnt.get_rnnt_logprobs_smoothed(lm, am, symbols, 0, LM_SCALE, 0.0, boundary)
        scores, (px_grad, py_grad) = rnnt.mutual_information_recursion(
            *arcs, boundary, return_grad=True
        )
        simple = -scores.sum()
    else:
        simple, (px_grad, py_grad) = rnnt.rnnt_loss_smoothed(
            lm, am, symbols, 0, LM_SCALE, 0.0, boundary, reduction="sum", return_grad=True
        )
    own = rnnt.get_rnnt_prune_ranges(px_grad, py_grad, boundary, S_RANGE)
    ranges = own if ranges is None else ranges
    am = linear(inputs["encoder_out"], "encoder_proj", inputs)
    lm = linear(inputs["decoder_out"], "decoder_proj", inputs)
    if program == "torch operations":
        am, lm = rnnt.do_rnnt_pruning(am, lm, ranges)
        logits = linear((am + lm).tanh(), "output_linear", inputs)
        arcs = rnnt.get_rnnt_logprobs_pruned(logits, symbols, ranges, 0, boundary)
        return simple, -rnnt.mutual_information_recursion(*arcs, boundary).sum(), own
    pruned = rnnt.rnnt_loss_pruned_joiner(
        am,
        lm,
        inputs["output_linear.weight"],
        inputs["output_linear.bias"],
        symbols,
        ranges,
        0,
        boundary,
        reduction="sum",
        negligible=0.0 if program == "snowmelt, exact" else NEGLIGIBLE,
        product_dtype=torch.bfloat16 if program == "snowmelt, bf16 products" else None,
    )
    return simple, pruned, own


# What training leaves out, train/objective.py.
NEGLIGIBLE = 1e-6

if __name__ == "__main__":
    main()
