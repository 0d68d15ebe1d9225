"""Memory pools, rules and needs, from the configuration and a reading of the machine."""

from __future__ import annotations

import itertools
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from ...dataclass import dataclass, field
from ...runtime import MemoryFailures, MemoryLearning, MemoryLedger, ServiceSpec
from ...runtime.memory import Amounts, MemoryNeed, Pool, Rules, lru_cost, reload_cost
from ...runtime.placement import Device, has_placeholder
from ...runtime.ports import Node, PoolReading
from ..config import Config, ModelConfig
from ..config.check_memory import MACHINE_POOL
from ..config.schema.memory import MemorySection, ModelMemory, PoolSection, Size
from ..memory import CommandPool, Meter
from ..memory.evidence import allocation_failure
from ..memory.launches import Launch, LaunchReader
from ..memory.printed_sizes import PrintedSizes
from ..system import threads
from .cluster.memory import NodeEstimate, cluster_need, node_pools
from .container_setup import container_gpus
from .service_setup import service_spec
from .yield_setup import yield_rules

log = logging.getLogger(__name__)

RAM = "RAM"
_GPU = re.compile(r"GPU\d+")
#: Share and least bytes of the reserve; a desktop lives in unified memory too.
_RESERVES = {"gpu": (0.05, 512 << 20), "ram": (0.05, 2 << 30), "unified": (0.08, 4 << 30)}
_DEVICES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
_UNREAD = Launch()
_VULKAN = "GGML_VK_VISIBLE_DEVICES"
_SHORTEST_UUID = len("GPU-")
_DEVICE_OPTION = re.compile(r"(?:CUDA|ROCm|Vulkan)(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPools:
    """The pools of a configuration on one machine.

    Attributes:
        pools: Pools by name, RAM and those of GPUs first.
        devices: Pool -> its GPU, in the order of their numbers.
        aliases: Name of a GPU that uses main memory -> pool that it is part of.
    """

    pools: Mapping[str, Pool]
    devices: Mapping[str, Device] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)

    @property
    def gpus(self) -> tuple[str, ...]:
        """Names of the pools that are GPUs."""
        return tuple(name for name in self.pools if name in self.devices or _GPU.fullmatch(name))

    def known(self, names: Iterable[str]) -> list[str]:
        """Return the pools that *names* mean, once each, without those that do not exist."""
        pools = (self.aliases.get(name, name) for name in names)
        return [name for name in dict.fromkeys(pools) if name in self.pools]

    def amounts(self, sizes: Mapping[str, Size]) -> dict[str, int]:
        """Return *sizes* in bytes; those of names of one pool are added up."""
        found: dict[str, int] = {}
        for name, size in sizes.items():
            for pool in self.known([name]):
                found[pool] = found.get(pool, 0) + size.of(self.pools[pool].capacity)
        return found


def memory_rules(config: Config) -> Rules:
    """Return the rules of the memory decision."""
    memory = config.memory
    return Rules(
        cost=lru_cost if memory.evict == "lru" else reload_cost,
        refuse_unknown=memory.unknown == "refuse",
    )


def memory_pools(config: Config, readings: Sequence[PoolReading]) -> MemoryPools:
    """Return the pools that the machine has and those that the configuration adds."""
    memory = config.memory
    pools: dict[str, Pool] = {}
    devices: dict[str, Device] = {}
    aliases: dict[str, str] = {}
    vendors: Counter[str] = Counter()
    unified = {reading.part_of for reading in readings if reading.part_of}
    names = _names_of(readings, memory)
    for reading, name in zip(readings, names, strict=True):
        if reading.part_of:
            aliases[name] = reading.part_of
            continue
        if reading.device:
            devices[name] = Device(
                id=reading.device, vendor=reading.vendor, number=vendors[reading.vendor],
                position=len(devices),
            )  # fmt: skip
            vendors[reading.vendor] += 1
        section = memory.pools.get(name, PoolSection())
        if reading.capacity:
            is_unified = reading.name in unified
            pools[name] = _pool(name, section, reading.capacity, memory, is_unified=is_unified)
    present = {reading.device for reading in readings if reading.device}
    for name, section in memory.pools.items():
        if name in pools or name in aliases or (section.device in present and name not in devices):
            continue
        if section.capacity is not None and section.capacity.bytes_ is not None:
            pools[name] = _pool(name, section, section.capacity.bytes_, memory)
    devices = {name: device for name, device in devices.items() if name in pools}
    return MemoryPools(pools=pools, devices=devices, aliases=aliases)


def _names_of(readings: Sequence[PoolReading], memory: MemorySection) -> list[str]:
    """Return the name of the pool of each reading, by the configuration or else its own.

    A GPU whose own name the configuration gives to another one gets the next free number.
    """
    given = {section.device: name for name, section in memory.pools.items() if section.device}
    names = [given.get(r.device) or given.get(r.name, "") for r in readings]
    free = (f"GPU{number}" for number in itertools.count())
    own = [r.name for r, name in zip(readings, names, strict=True) if not name]
    taken = {*names, *own}
    for index, reading in enumerate(readings):
        if not names[index]:
            is_free = reading.name not in names
            names[index] = reading.name if is_free else next(n for n in free if n not in taken)
    return names


def _pool(
    name: str, section: PoolSection, capacity: int, memory: MemorySection, *,
    is_unified: bool = False,
) -> Pool:  # fmt: skip
    if section.capacity is not None:
        capacity = min(section.capacity.of(capacity), capacity)
    reserve = section.reserve or memory.reserve
    if reserve is not None:
        reserved = reserve.of(capacity)
    elif section.capacity is not None and not MACHINE_POOL.fullmatch(name):
        reserved = 0  # a pool of one's own
    else:
        kind = "unified" if is_unified else "ram" if name == RAM else "gpu"
        share, least = _RESERVES[kind]
        reserved = min(max(int(capacity * share), least), capacity // 4)
    limit = None if section.limit is None else section.limit.of(capacity)
    return Pool(name=name, capacity=capacity, reserve=reserved, limit=limit)


def memory_need(
    model: ModelConfig, found: MemoryPools, launch: Launch = _UNREAD
) -> MemoryNeed | None:
    """Return what *model* needs of the pools; None if memory is no condition for it.

    Amounts that are not declared are those of the estimate for its *launch*, and unknown, at the
    pools that its command uses, if there is none.
    """
    memory = model.memory
    if memory.is_free or model.external:
        return None
    estimated = _estimated(launch, found)
    need = MemoryNeed(
        options=(), asleep=found.amounts(memory.asleep), weight=memory.evict_cost,
        key=launch.key, estimated=estimated, is_elastic=launch.is_elastic,
        sets_devices=sets_devices(model), files=launch.files, advice=launch.advice,
    )  # fmt: skip
    if memory.pools:
        return replace(need, options=(found.amounts(memory.pools),))
    where = _where(model, found)
    if memory.need is not None:
        return replace(need, options=tuple(_places(memory, memory.need, where, found.pools)))
    if estimated and launch.estimate is not None:
        return replace(
            need, options=(estimated,), source="estimated", note=launch.estimate.note
        )  # fmt: skip
    return replace(
        need, options=(dict.fromkeys(where, 0),) if where else (), source="unknown"
    )  # fmt: skip


def _where(model: ModelConfig, found: MemoryPools) -> list[str]:
    return found.known(model.memory.on) or used_pools(model, found)


def _estimated(launch: Launch, found: MemoryPools) -> dict[str, int]:
    """Return the estimated bytes by pool; RAM beside GPUs counts only if it has a limit."""
    amounts = {} if launch.estimate is None else launch.estimate.amounts
    known = found.amounts({name: Size(bytes_=amount) for name, amount in amounts.items()})
    if len(known) > 1 and RAM in known and found.pools[RAM].limit is None:
        del known[RAM]
    return known


def _places(
    memory: ModelMemory, need: Size, where: Sequence[str], pools: Mapping[str, Pool]
) -> list[Amounts]:
    places: list[Amounts] = []
    for way in memory.place:
        if way == "any":
            places += [{name: need.of(pools[name].capacity)} for name in where]
        elif where:
            total = need.of(sum(pools[name].capacity for name in where))
            share, rest = divmod(total, len(where))
            places.append({name: share + (i < rest) for i, name in enumerate(where)})
    return places


def used_pools(model: ModelConfig, found: MemoryPools) -> list[str]:
    """Return the pools that the command of *model* uses.

    These are the GPUs that its container, its variables or its ``--device`` name, else all of them;
    RAM on a machine without GPU, and for a container without one.
    """
    gpus = found.gpus
    given = container_gpus(model.container)
    if not gpus or given == ():
        return [RAM] if RAM in found.pools else []
    if given is not None and "all" not in given:
        return [name for name in gpus if _is_named(name, found, given)]
    for variable in _DEVICES:
        value = _variable(model, variable)
        if value is not None:
            names = [part.strip() for part in value.split(",")]
            return [name for name in gpus if _is_named(name, found, names)]
    numbers = _DEVICE_OPTION.findall(_option(model.argv, "--device", "-dev"))
    if not numbers and _option(model.argv, "--split-mode", "-sm") == "none":
        numbers = [_option(model.argv, "--main-gpu", "-mg") or "0"]
    if numbers and not has_placeholder(model.argv):
        return [name for name in gpus if _is_named(name, found, numbers)]
    return list(gpus)


def sets_devices(model: ModelConfig) -> bool:
    """Return True if the command of *model*, or the environment of the proxy, says its GPUs."""
    given = container_gpus(model.container)
    if given is not None and "all" not in given:
        return True
    return any(_variable(model, variable) is not None for variable in (*_DEVICES, _VULKAN)) or bool(
        _option(model.argv, "--device", "-dev", "--main-gpu", "-mg")
    )


def _variable(model: ModelConfig, name: str) -> str | None:
    """Return a variable that the command will have, without what its place adds."""
    return model.environment.get(name, os.environ.get(name))


def _is_named(name: str, found: MemoryPools, given: Sequence[str]) -> bool:
    """Return True if one of the numbers or UUIDs *given* means pool *name*; UUIDs may be cut."""
    device = found.devices.get(name)
    number = name.removeprefix("GPU") if device is None else str(device.number)
    uuid = "" if device is None else device.id
    return any(
        each == number or (len(each) > _SHORTEST_UUID and uuid.startswith(each)) for each in given
    )


def _option(argv: Sequence[str], *names: str) -> str:
    """Return the value of an option of a command; empty if it is not given."""
    for index, argument in enumerate(argv):
        head, _, value = argument.partition("=")
        if head in names:
            return value or (argv[index + 1] if index + 1 < len(argv) else "")
    return ""


def _checks(config: Config) -> list[CommandPool]:
    """Return the pools that are read by a command."""
    return [
        CommandPool(name, section.capacity.bytes_, section.check_argv)
        for name, section in config.memory.pools.items()
        if section.check_argv and section.capacity is not None and section.capacity.bytes_
    ]


class MemorySetup:
    """Memory ledger of the proxy, kept in line with its configuration.

    Args:
        meter: Reads the machine.
        learning: What earlier runs have shown; None begins with nothing.
        failures: Earlier ends because memory ran out; None begins with none.

    Attributes:
        ledger: Claims of all models; without `memory:` it has no pools, and no model a need.
        meter: Reads the machine.
        readings: Pools of the machine when they were looked for.
        nodes: Nodes of the cluster; to be followed by `configure`.
        node_estimates: Returns the estimates of a model by node.
    """

    def __init__(
        self, meter: Meter, learning: MemoryLearning | None = None,
        failures: MemoryFailures | None = None,
    ) -> None:  # fmt: skip
        self.meter = meter
        self.ledger = MemoryLedger(learning=learning, failures=failures)
        self.ledger.failures.find = allocation_failure
        self.ledger.learning.sizes = PrintedSizes
        self._reader = LaunchReader()
        self._launches: dict[_LaunchFacts, Launch] = {}
        self._found = MemoryPools(pools={})
        self._costs: Mapping[str, float] = {}
        self.readings: Sequence[PoolReading] = ()
        self.nodes: Sequence[Node] = ()
        self.node_estimates: Callable[[ModelConfig], Mapping[str, NodeEstimate]] = lambda _: {}
        self._is_on = False
        self._cgroup = ""

    async def read(self, config: Config) -> None:
        """Read the machine for the sizes of its pools, if *config* uses them."""
        if config.memory.mode != "off":
            self._use_cgroup(config)
            try:
                self.readings = await self.meter.read(())
            except OSError as error:
                self._warn(error)
            await threads.run(self._read_launches, config)

    def prepare(self, config: Config) -> None:
        """Do as `read` does for a later configuration; blocks.

        Pools are read again only if a pool is missing: its driver may have come since.
        """
        if config.memory.mode == "off":
            return
        is_other_cgroup = self._use_cgroup(config)
        if (
            is_other_cgroup
            or not self.readings
            or _missing_pools(config, memory_pools(config, self.readings))
        ):
            try:
                self.readings = self.meter.read_blocking(())
            except OSError as error:
                self._warn(error)
        self._read_launches(config)

    def _read_launches(self, config: Config) -> None:
        """Read the files of all models; those that changed since make another launch."""
        found = memory_pools(config, self.readings)
        for model in config.models.values():
            if not (model.memory.is_free or model.external or model.nodes is not None):
                gpus = {
                    name: found.pools[name].capacity
                    for name in _where(model, found)
                    if name in found.gpus
                }
                self._launches[_facts(model)] = self._reader.read(
                    model.id, model.argv, model.environment, gpus, port=model.port
                )

    def _use_cgroup(self, config: Config) -> bool:
        """Count the limit of the cgroup that *config* names; return True if it is another one."""
        path = config.memory.cgroup or ""
        if not self.meter.use_cgroup(path):
            log.warning("`memory.cgroup` %s does not exist: it does not limit RAM", path)
        before, self._cgroup = self._cgroup, path
        return path != before

    @staticmethod
    def _warn(error: OSError) -> None:
        log.warning("memory cannot be read (%s): only declared pools are used", error)

    def configure(self, config: Config) -> None:
        """Apply the pools and rules of *config*; needs follow with the services."""
        ledger, mode = self.ledger, config.memory.mode
        is_on = self._is_on = mode != "off"
        self._found = memory_pools(config, self.readings) if is_on else MemoryPools(pools={})
        if is_on and (missing := _missing_pools(config, self._found)):
            log.warning(
                "memory pools that this machine does not have are no condition: %s; a pool needs a "
                "driver, or a `capacity` below `memory.pools`", ", ".join(missing),
            )  # fmt: skip
        matrix = config.routing.matrix
        self._costs = {} if matrix is None else matrix.costs
        self.meter.add(_checks(config) if is_on else ())
        held = {name: ledger.held(name) for name in ledger.pools}
        pools = {**self._found.pools, **(node_pools(self.nodes, held) if is_on else {})}
        ledger.configure(pools.values(), memory_rules(config), self._found.devices)
        ledger.yield_rules = tuple(yield_rules(config, self._found))
        ledger.decides = mode == "auto"
        ledger.evicts_under_pressure = mode == "auto" and config.memory.on_pressure == "evict"

    def service(self, model: ModelConfig) -> ServiceSpec:
        """Return the service of *model*, with what it needs of memory."""
        spec = service_spec(model)
        if model.nodes is not None and self._is_on:
            need = cluster_need(model, self.nodes, self.node_estimates(model))
            return replace(spec, memory=need)
        if not self._found.pools or model.nodes is not None:
            return spec
        return replace(spec, memory=self._base(model, self._found))

    def need(self, model: ModelConfig, found: MemoryPools) -> MemoryNeed | None:
        """Return what *model* needs of the pools *found*, by the best that is known."""
        base = self._base(model, found)
        return None if base is None else self.ledger.learning.footprints.need(model.id, base)

    def _base(self, model: ModelConfig, found: MemoryPools) -> MemoryNeed | None:
        need = memory_need(model, found, self._launches.get(_facts(model), _UNREAD))
        if need is None or "evict_cost" in model.memory.model_fields_set:
            return need
        return replace(need, weight=self._costs.get(model.id, 1.0))


def _missing_pools(config: Config, found: MemoryPools) -> list[str]:
    """Return the pools that the configuration names and that were not found, sorted."""
    named = {*config.memory.pools, *(name for each in config.yields for name in each.pools)}
    for model in config.models.values():
        if model.nodes is not None:
            continue
        named.update(model.memory.pools, model.memory.on, model.memory.asleep)
    return sorted(named - {*found.pools, *found.aliases})


#: Id, command and variables of a model.
_LaunchFacts: TypeAlias = tuple[str, tuple[str, ...], tuple[tuple[str, str], ...]]


def _facts(model: ModelConfig) -> _LaunchFacts:
    return model.id, model.argv, tuple(sorted(model.environment.items()))
