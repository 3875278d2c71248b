"""A case made concrete: what a timed call does, and what it must have been given before."""

from __future__ import annotations

import pytest
import torch

from opbench import subject
from opbench.cases import Case, Nchw, Pass, Scope
from opbench.registry import Registry
from opbench.subject import Subject

REGISTRY = Registry.discover()
SHAPE = Nchw(2, 16, 9, 7)


def loaded(operator: str, pass_: Pass = "training", scope: Scope = "layer") -> Subject:
    return Subject.load(REGISTRY, Case(operator=operator, shape=SHAPE, pass_=pass_, scope=scope))


@pytest.mark.parametrize("operator", REGISTRY.names)
@pytest.mark.parametrize("scope", ["core", "layer"])
def test_a_timed_call_makes_no_random_numbers(operator: str, scope: Scope, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient that comes in from outside is input, not work: making it within a call would be timed with it."""
    concrete = loaded(operator, scope=scope)
    step = concrete.step(concrete.bundle())

    def never(*_: object, **__: object) -> None:
        raise AssertionError("a timed call makes random numbers")

    monkeypatch.setattr(subject, "incoming_gradient", never)
    monkeypatch.setattr(torch, "randn", never)
    assert len(step()) > 1


def test_training_gives_the_output_and_a_gradient_for_everything_that_learns() -> None:
    concrete = loaded("convolution")
    bundle = concrete.bundle()
    output, *gradients = concrete.step(bundle)()
    assert output.shape == concrete.output_shape
    assert [gradient.shape for gradient in gradients] == [bundle.inputs[0].shape, bundle.parameters[0].shape]


def test_every_bundle_receives_the_same_incoming_gradient_in_a_buffer_of_its_own() -> None:
    """With a constant weight the gradient of x depends on what comes in alone."""
    concrete = loaded("convolution", scope="core")
    bundles = concrete.copies(2)
    with torch.no_grad():
        for bundle in bundles:
            bundle.inputs[1].fill_(1.0)
    first, second = (concrete.step(bundle)()[1] for bundle in bundles)
    assert torch.equal(first, second)


def test_a_forward_builds_no_graph() -> None:
    concrete = loaded("involution", "forward")
    with torch.no_grad():
        (output,) = concrete.step(concrete.bundle())()
    assert not output.requires_grad


def test_copies_have_values_of_their_own() -> None:
    one, other = loaded("ls_convolution").copies(2)
    assert not torch.equal(one.inputs[0], other.inputs[0])
    assert not torch.equal(one.parameters[0], other.parameters[0])


def test_the_same_seed_gives_the_same_layer_whatever_the_core() -> None:
    concrete = loaded("convolution")
    native = Subject.load(REGISTRY, concrete.case, "native")
    pairs = zip(concrete.bundle(3).parameters, native.bundle(3).parameters, strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
