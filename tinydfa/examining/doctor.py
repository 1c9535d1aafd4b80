"""`doctor`: on one batch, what trains each parameter, and what is wrong.

It compares four gradients of the same loss at the same weights: the method's, backpropagation's, the method's with
its projection switched off (what is left below a point then came around the points, by backpropagation), and the
method's in a compiled and in an autocast step. Nothing of the model is changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from tinydfa.attaching.attachment import Attachment
from tinydfa.examining.alignment import method_of
from tinydfa.examining.diagnosis import ADVICE, BELOW_NORM, POST_NORM, Diagnosis, Fault, Finding, Status
from tinydfa.examining.examination import Around, Examination, Gradients, LossFn
from tinydfa.examining.needs import memory_needs
from tinydfa.head import Head
from tinydfa.layerwise.feedback_layers import LayerFeedback
from tinydfa.points import DFALayer
from tinydfa.rules import Rule, Shallow
from tinydfa.surroundings.wrappers import unwrapped

ROUNDING = 1e-5  # of the largest gradient: less is what rounding leaves of 0


def doctor(model: nn.Module, batch: Any, loss_fn: LossFn, *, compile: bool = True, autocast: bool = True) -> Diagnosis:
    """Examine a model that a method is at work on.

    Args:
        model: A model with a `DFA` head, or one that `attach` was called on; also after `torch.compile`.
        batch: Handed to `loss_fn` as it is.
        loss_fn: ``loss_fn(model, batch)`` calls the model once and returns the loss, a scalar. Under a rule
            that reads targets it also sets ``attachment.target``.
        compile: Also take a compiled step: of `model` itself if it is compiled, else of a freshly compiled one. A rule
            that looks at some passes is not compiled unless `model` is.
        autocast: Also take a step under bfloat16 autocast.

    Returns:
        A `Diagnosis`: print it, or look at its `findings`.

    Raises:
        DFAError: No method is at work on `model`.

    Example:
        >>> from tinydfa import attach
        >>> net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
        >>> attachment = attach(net, "dfa", points=["1"])
        >>> report = doctor(net, torch.randn(5, 4), lambda net, x: net(x).square().mean(), compile=False)
        >>> report.parameters["0.weight"].value, report.parameters["2.weight"].value, report.healthy
        ('method', 'bp', True)
    """
    eager = unwrapped(model)
    attachment, link = method_of(eager)
    rule = link.rule if attachment is None else attachment.rule
    examined = Examination(eager, batch, loss_fn, link)
    diagnosis = Diagnosis(method=rule.name)
    ours = examined.gradients()
    with attachment.backprop() if attachment is not None else link.backprop():
        truth, below = examined.gradients(), examined.below_points()
    around = examined.around_points() if rule.cuts else None
    kept = examined.kept_weights() if rule.layerwise else []
    diagnosis.parameters = {name: status(name, ours, truth) for name, _ in eager.named_parameters()}
    diagnosis.points = points_of(attachment, examined)
    diagnosis.advice = advice_for(rule, examined.norm_below_error)
    if around is not None:
        diagnosis.crossed, diagnosis.shared = around.crossed, around.shared
    projector = link.settings.feedback.projector
    diagnosis.projector = "" if projector is None else repr(projector)
    diagnosis.input_gradients = examined.input_gradients(attachment)
    diagnosis.at_output = examined.at_output
    diagnosis.looks = looks_so_far(rule, attachment)
    diagnosis.feedback_bytes = sum(tensor.nbytes for tensor in feedback_of(eager, attachment))
    diagnosis.memory = memory_needs(eager, batch, loss_fn) if rule.cuts and attachment is not None else None
    diagnosis.waiting = waiting(eager, ours, truth)
    diagnosis.findings += [
        *untrained(diagnosis),
        *backpropagated(diagnosis, rule, eager, below, around, kept),
        *unfed(eager),
    ]
    diagnosis.findings += not_run(attachment, examined)
    if compile and not (rule.looks and model is eager):  # a rule that looks is not compiled as a whole
        compare_compiled(diagnosis, examined, model, ours)
    if autocast:
        compare_autocast(diagnosis, examined, ours)
    diagnosis.findings += ranks(feedback_of(eager, attachment))
    return diagnosis


def advice_for(rule: Rule, norm_below_error: bool | None) -> tuple[str, ...]:
    """What may help by a rule of fixed feedback; by one that learns, the line on where the error is taken alone."""
    if not rule.broadcasts:
        return ()
    apt = {BELOW_NORM: bool(norm_below_error), POST_NORM: norm_below_error is not None}
    return tuple(line for line in ADVICE if apt.get(line, True) and (line == BELOW_NORM or not rule.learns))


def points_of(attachment: Attachment | None, examined: Examination) -> dict[str, int | None]:
    """Every point with its width; those that did not run come last, without one."""
    ran = {point.label: point.width for point in examined.points}
    idle = [name for name in attachment.points if name not in ran] if attachment is not None else []
    return ran | dict.fromkeys(idle)


def not_run(attachment: Attachment | None, examined: Examination) -> Iterator[Finding]:
    """Points that the batch did not pass: nothing is cut there, and nothing is fed."""
    if attachment is None or attachment.head is None:
        return
    ran = {point.label for point in examined.points}
    names = tuple(name for name in attachment.points if name not in ran)
    if names:
        yield Finding(
            Fault.NOT_RUN, names, "Its module is never called, or not in this pass: choose another, such as its parts."
        )


def status(name: str, ours: Gradients, truth: Gradients) -> Status:
    if name not in ours:
        return Status.FROZEN
    gradient, reference = ours[name], truth[name]
    if gradient is None:
        return Status.NONE
    if not gradient.any():
        return Status.ZERO
    if reference is not None and torch.allclose(gradient, reference, rtol=1e-4, atol=1e-12):
        return Status.BP
    return Status.METHOD


def waiting(model: nn.Module, ours: Gradients, truth: Gradients) -> tuple[str, ...]:
    """Parameters whose gradient is zero, by backpropagation too, as long as a matrix that itself trains is zero."""
    parameters = {name: p for name, p in model.named_parameters() if p.dim() > 1 and name in ours}
    moving = [p for name, p in parameters.items() if (gradient := ours[name]) is not None and gradient.any()]
    if all(bool(parameter.any()) for parameter in moving):
        return ()
    still = [name for name, gradient in ours.items() if gradient is not None and not gradient.any()]
    return tuple(name for name in still if (reference := truth[name]) is not None and not reference.any())


def untrained(diagnosis: Diagnosis) -> Iterator[Finding]:
    if diagnosis.method == Shallow.name:
        return
    for kind, fault in ((Status.NONE, Fault.CUT_OFF), (Status.ZERO, Fault.ZERO_GRADIENT)):
        found = (name for name, status in diagnosis.parameters.items() if status is kind)
        names = tuple(name for name in found if name not in diagnosis.waiting)
        if names:
            yield Finding(
                fault,
                names,
                "Look for a point above it that the head does not feed, a detach, or an output it does not reach.",
            )


def backpropagated(
    diagnosis: Diagnosis, rule: Rule, model: nn.Module, below: set[str], around: Around | None, kept: list[str]
) -> Iterator[Finding]:
    """Parameters that backpropagation trains although a method is in force; one layer above the last point may be."""
    if around is not None:
        leaks = tuple(name for name in diagnosis.parameters if name in around.leaking)
        if leaks:
            yield Finding(
                Fault.TRAINED_BY_BP, leaks, "A path to the output leads around the points: place a point on it."
            )
        above = tuple(name for name, found in diagnosis.parameters.items() if found is Status.BP and name not in below)
        layers = list(dict.fromkeys(name.rpartition(".")[0] for name in above if is_matrix(model, name)))
        if len(layers) > 1 and not isinstance(rule, Shallow):
            yield Finding(
                Fault.TRAINED_BY_BP, tuple(layers), "Only the last should lie above the last point: add points below."
            )
    elif kept:
        yield Finding(
            Fault.TRAINED_BY_BP,
            tuple(kept),
            f"The signal of {rule} passes these by their own weights: build them of nn.Linear, or say how they use "
            "their weight (tinydfa.register_layer).",
        )


def is_matrix(model: nn.Module, name: str) -> bool:
    return model.get_parameter(name).dim() > 1


def unfed(model: nn.Module) -> Iterator[Finding]:
    names = tuple(n for n, m in model.named_modules() if isinstance(m, DFALayer) and m.link is None)
    if names:
        yield Finding(Fault.UNFED_POINT, names, "Add it to the head's list, DFA([...]), or remove it from the model.")


def compare_compiled(diagnosis: Diagnosis, examined: Examination, model: nn.Module, ours: Gradients) -> None:
    compiled: Any = model if model is not examined.model else torch.compile(examined.model, backend="aot_eager")
    try:
        theirs = examined.gradients(compiled)
    except Exception as error:  # whatever the compiler raises is what the user wants to read
        diagnosis.findings.append(Finding(Fault.COMPILE_FAILED, (first_line(error),), "Run it without compile."))
        return
    diagnosis.agreement["compiled"], differing = agreement(ours, theirs, least=0.999)
    if differing:
        repair = "Hooks set after compiling are skipped: attach first, then torch.compile (or torch.compiler.reset())."
        diagnosis.findings.append(Finding(Fault.COMPILE_DIFFERS, differing, repair))


def compare_autocast(diagnosis: Diagnosis, examined: Examination, ours: Gradients) -> None:
    kind = next(examined.model.parameters()).device.type
    try:
        with torch.autocast(kind, dtype=torch.bfloat16):
            theirs = examined.gradients()
    except Exception as error:
        diagnosis.findings.append(Finding(Fault.AUTOCAST_FAILED, (first_line(error),), "Train in float32."))
        return
    diagnosis.agreement["bfloat16"], differing = agreement(ours, theirs, least=0.9)
    if differing:
        repair = "Keep these layers, or those below them, in float32: torch.autocast(..., enabled=False)."
        diagnosis.findings.append(Finding(Fault.AUTOCAST_DIFFERS, differing, repair))


def agreement(ours: Gradients, theirs: Gradients, least: float) -> tuple[float, tuple[str, ...]]:
    """Smallest cosine between two sets of gradients, and the names of those below `least`.

    What is 0 but for rounding has no direction and is left out, such as a bias whose layer batch normalisation follows.
    """
    sizes = {name: float(gradient.double().norm()) for name, gradient in ours.items() if gradient is not None}
    rounding = ROUNDING * max(sizes.values(), default=0.0)
    cosines = {
        name: cosine(gradient, theirs[name])
        for name, gradient in ours.items()
        if not 0.0 < sizes.get(name, 0.0) < rounding
    }
    return min(cosines.values(), default=1.0), tuple(name for name, value in cosines.items() if value < least)


def cosine(one: Tensor | None, other: Tensor | None) -> float:
    if one is None or other is None:
        return 1.0 if one is other else 0.0
    one, other = one.double().flatten(), other.double().flatten()
    size = one.norm() * other.norm()
    return float(one @ other / size) if size > 0 else float(one.norm() == other.norm())


def feedback_of(model: nn.Module, attachment: Attachment | None) -> list[Tensor]:
    """Every feedback matrix at work."""
    heads = [attachment.head] if attachment is not None else [m for m in model.modules() if isinstance(m, Head)]
    found = [head.feedback_matrix for head in heads if head is not None and head.feedback_matrix is not None]
    found += [head.learner.matrix for head in heads if head is not None and head.learner is not None]
    layers = [module.matrix for module in model.modules() if isinstance(module, LayerFeedback)]
    return found + [tensor for tensor in layers if tensor is not None]


def looks_so_far(rule: Any, attachment: Attachment | None) -> str:
    """How often a rule that looks has done so; empty for others."""
    if not rule.looks or attachment is None or attachment.head is None:
        return ""
    passes = range(attachment.head.forwards)
    exact, probed = sum(map(rule.is_exact, passes)), sum(map(rule.probes, passes))
    if rule.adapts and attachment.head.learner is not None:
        exact = attachment.head.learner.exact.count
    how = "as they are" if probed and rule.probe.times == 0 else "with noise"
    return f"of {len(passes)} training passes {exact} exact, {probed} probed {how}"


def ranks(feedback: list[Tensor]) -> Iterator[Finding]:
    """Compare checksums of the feedback over all processes, if there are several."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    digest = hashlib.sha256()
    for tensor in feedback:
        digest.update(tensor.detach().cpu().float().numpy().tobytes())
    digests: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(digests, digest.hexdigest())
    strange = tuple(f"rank {rank}" for rank, other in enumerate(digests) if other != digests[0])
    if strange:
        yield Finding(
            Fault.RANKS_DIFFER, strange, "Their gradients are averaged into nonsense: use one seed, and one checkpoint."
        )


def first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
