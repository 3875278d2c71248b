"""A case made concrete: the operator loaded, its tensors made, and the call that is checked, counted and timed."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from opbench import params as parameters
from opbench.api import Core, Maker, Operator
from opbench.cases import Case, Nchw
from opbench.check import incoming_gradient, usable_core
from opbench.errors import PluginError, Unsupported
from opbench.networks import catalogue
from opbench.networks.network import Network
from opbench.networks.settling import settle
from opbench.networks.slot import Filling, slots
from opbench.registry import Registry

CPU = torch.device("cpu")
META = torch.device("meta")


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """One set of buffers and the call over them."""

    forward: Callable[[], Tensor]
    inputs: tuple[Tensor, ...]
    """The core's tensors, or what goes into the layer or network."""
    parameters: tuple[Tensor, ...]
    """The layer's or network's learnable tensors; none for a core."""

    @property
    def bytes(self) -> int:
        """Bytes of inputs and parameters."""
        return sum(tensor.nbytes for tensor in (*self.inputs, *self.parameters))


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What a case and an implementation name stand for."""

    case: Case
    operator: Operator
    params: Any
    core: Core
    network: Network | None = None
    """Whose slots the operator fills, at that scope."""
    device: torch.device = CPU
    """Where its tensors are made, unless another is asked for."""

    @classmethod
    def load(
        cls, registry: Registry, case: Case, implementation: str = "reference", device: torch.device = CPU
    ) -> Subject:
        """Import the operator, build its parameters, and find the network where the case has one.

        Raises:
            OpbenchError: there is no such network.
            PluginError: the operator cannot be imported.
            ValueError: the parameters are not legal.
            Unsupported: there is no such implementation, or it does not cover the case.
        """
        operator = registry.load(case.operator)
        network = None if case.network is None else catalogue.find(case.network)
        values = case.params if network is None else network.params_for(case.operator, case.params)
        params = parameters.build(operator.params, values)
        if implementation in operator.implementations:
            offered = operator.implementations[implementation]
            if device.type not in offered.devices:
                raise Unsupported(f"{implementation} runs on {', '.join(offered.devices)}, not on {device.type}")
            if case.dtype not in offered.dtypes:
                raise Unsupported(f"{implementation} covers {', '.join(offered.dtypes)}, not {case.dtype}")
        core = usable_core(operator, implementation)
        return cls(case=case, operator=operator, params=params, core=core, network=network, device=device)

    @property
    def dtype(self) -> torch.dtype:
        """The case's dtype as torch names it."""
        dtype: torch.dtype = getattr(torch, self.case.dtype)
        return dtype

    def core_inputs(self, seed: int = 0, device: torch.device | None = None) -> dict[str, Tensor]:
        """Make the core's tensors by name.

        Raises:
            PluginError: the plugin gives something else.
        """
        make = Maker(self.dtype, device or self.device, torch.Generator().manual_seed(seed))
        tensors = self._inputs(self.params, self.case.shape, make)
        return {name: self._formatted(tensor) for name, tensor in tensors.items()}

    def core_names(self, module: nn.Module, params: Any) -> list[str]:
        """Names of the core's tensors within the case's layer, or where a network's slot has these parameters."""
        if self.network is None:
            return list(self.core_inputs(device=META))
        filled = list(slots(module).values())
        slot = next((slot for slot in filled if slot.params == params), filled[0])
        shape = self.case.shape._replace(channels=slot.in_channels)
        return list(self._inputs(params, shape, Maker(self.dtype, META)))

    def _inputs(self, params: Any, shape: Nchw, make: Maker) -> Mapping[str, Tensor]:
        tensors: Mapping[str, Tensor] = self.operator.inputs(params, shape, make)
        given = list(tensors.values()) if isinstance(tensors, Mapping) else []
        if not given or not all(isinstance(tensor, Tensor) for tensor in given):
            raise PluginError(f"{self.case.operator}: inputs must give tensors by name, got {tensors!r}")
        return tensors

    def module(self, core: Core | None = None, seed: int = 0, device: torch.device | None = None) -> nn.Module:
        """Build the trainable layer around the case's core, or another, or the network; in the mode its pass needs.

        Raises:
            Unsupported: the operator has no layer, or cannot do what a slot of the network asks of it.
        """
        device = device or self.device
        torch.manual_seed(seed)
        # Drawn on the CPU whatever the device, so that every device sees the same parameters.
        with META if device.type == "meta" else CPU:
            module = self._built(core or self.core)
        module.to(device, self.dtype).train(self.case.pass_ == "training")
        if self.case.memory_format == "channels_last":
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.network is not None and self.case.pass_ == "forward" and device.type != "meta":
            settle(module, self.feature_map(seed, device))
        return module

    def _built(self, core: Core) -> nn.Module:
        if self.network is not None:
            filling = Filling(
                name=self.case.operator,
                operator=self.operator,
                params=self.network.params_for(self.case.operator, self.case.params),
                core=core,
                own=self.case.operator == self.network.operator,
                chosen=frozenset(self.case.params),
            )
            return self.network.build(filling)
        if self.operator.layer is None:
            raise Unsupported(f"{self.case.operator} has no layer, only a core")
        return self.operator.layer(self.case.shape.channels, self.params, core)

    def feature_map(self, seed: int = 0, device: torch.device | None = None) -> Tensor:
        """Make what goes into the layer or network."""
        make = Maker(self.dtype, device or self.device, torch.Generator().manual_seed(seed))
        return self._formatted(make.normal(*self.case.shape))

    def bundle(self, seed: int = 0, device: torch.device | None = None, core: Core | None = None) -> Bundle:
        """Make one set of buffers and the call over them; leaves that train require a gradient."""
        core = core or self.core
        trains = self.case.pass_ == "training"
        if self.case.scope == "core":
            tensors = tuple(
                tensor.requires_grad_(trains and tensor.is_floating_point())
                for tensor in self.core_inputs(seed, device).values()
            )
            return Bundle(forward=lambda: core(self.params, *tensors), inputs=tensors, parameters=())
        module = self.module(core, seed, device)
        x = self.feature_map(seed, device).requires_grad_(trains)
        return Bundle(forward=lambda: module(x), inputs=(x,), parameters=tuple(module.parameters()))

    def refuse(self) -> None:
        """Raise what the operator says of parameters, channels or a place in a network that it does not take.

        Raises:
            ValueError: the parameters are not legal.
            Unsupported: they are, but not here.
        """
        if self.network is None:
            self.core_inputs(device=META)
        else:
            self.module(device=META)

    @functools.cached_property
    def output_shape(self) -> torch.Size:
        """Shape of the output, found on meta tensors; on real ones where the plugin cannot do without."""
        with torch.no_grad():
            try:
                return self.bundle(device=META, core=self.operator.reference).forward().shape
            except Exception:
                return self.bundle(core=self.operator.reference).forward().shape

    def step(self, bundle: Bundle) -> Callable[[], tuple[Tensor, ...]]:
        """Return the call that a pass times: the forward, or forward and backward to every leaf.

        The gradient that comes in from outside is made here, in a buffer of its own, and not within the call. The
        caller sets the grad mode: off for a forward, so that no graph is built; on for training.
        """
        if self.case.pass_ == "forward":
            return lambda: (bundle.forward(),)
        leaves = [tensor for tensor in (*bundle.inputs, *bundle.parameters) if tensor.requires_grad]
        incoming = incoming_gradient(torch.empty(self.output_shape, dtype=self.dtype, device=self.device))

        def train() -> tuple[Tensor, ...]:
            output = bundle.forward()
            gradients = torch.autograd.grad(output, leaves, incoming, allow_unused=True)
            return (output.detach(), *(gradient for gradient in gradients if gradient is not None))

        return train

    def copies(self, count: int, seed: int = 0) -> list[Bundle]:
        """Make several bundles of different values, so that calls over them in turn find cold caches."""
        return [self.bundle(seed + index) for index in range(count)]

    def _formatted(self, tensor: Tensor) -> Tensor:
        if self.case.memory_format == "channels_last" and tensor.dim() == 4:
            return tensor.contiguous(memory_format=torch.channels_last)
        return tensor


def frozen_copy(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Copy results, so that a later call cannot change them."""
    return tuple(copy.deepcopy(tensor.detach()) for tensor in tensors)
