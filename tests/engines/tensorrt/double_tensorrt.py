"""A double of TensorRT: what it builds and runs is the ONNX itself, in ONNX Runtime, on the double of CUDA.

Its names, arguments and enum members are those of NVIDIA's stubs (a test holds stubtest to it), it says no in the way
the real one does (null and a word to the logger), and it notes every call by class, method and keywords. `reset` makes
it 10.16 or 11.4: in 10 a network is strongly typed only where that is asked for.
"""

from __future__ import annotations

import collections.abc
import ctypes
import enum
import functools
import json
import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import onnx
import onnxruntime

from tests.engines.tensorrt import double_cuda as cuda

BUILD_LOG, BUILD_SECONDS = "DOUBLE_BUILD_LOG", "DOUBLE_BUILD_SECONDS"
"""Environment: a file that every build writes a line into, and how long one takes."""


@dataclass
class State:
    """What this TensorRT is like, and what was asked of it."""

    version: str = "11.4.0.106"
    starts: bool = True
    largest_build: int = 1 << 30
    scratch: int = 1 << 16
    unsupported: str = "Conjure"
    refuses_plans: int = 0
    fails_to_run: int = 0
    capturable: bool = True
    builds: int = 0
    contexts: int = 0
    calls: set[tuple[str, str, tuple[str, ...]]] = field(default_factory=set)
    typed: list[bool] = field(default_factory=list)
    flags: list[set[str]] = field(default_factory=list)
    profiles: list[tuple[tuple[int, ...], ...]] = field(default_factory=list)
    workspaces: list[int] = field(default_factory=list)
    timings: list[bytes] = field(default_factory=list)


state = State()
__version__ = state.version


def reset(version: str = "11.4.0.106") -> State:
    global state, __version__  # the one library of the process
    state, __version__ = State(version), version
    return state


def recorded(kind: type) -> Any:
    """Note every call of a class's methods and every use of its properties."""

    def noting(name: str, method: Any) -> Any:
        @functools.wraps(method)
        def call(*arguments: Any, **named: Any) -> Any:
            state.calls.add((kind.__name__, name, tuple(sorted(named))))
            return method(*arguments, **named)

        return call

    for name, value in list(vars(kind).items()):
        if isinstance(value, property):
            setter = None if value.fset is None else noting(name, value.fset)
            setattr(kind, name, property(noting(name, value.fget), setter))
        elif callable(value) and not isinstance(value, type) and not name.startswith("_"):
            setattr(kind, name, noting(name, value))
    return kind


class DataType(enum.IntEnum):
    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT32 = 3
    BOOL = 4
    UINT8 = 5
    INT64 = 9


class TensorIOMode(enum.IntEnum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


class BuilderFlag(enum.IntEnum):
    TF32 = 7


class MemoryPoolType(enum.IntEnum):
    WORKSPACE = 0


class ExecutionContextAllocationStrategy(enum.IntEnum):
    STATIC = 0
    ON_PROFILE_CHANGE = 1
    USER_MANAGED = 2


class Dims(tuple):
    __slots__ = ()

    def __new__(cls, shape: Any = ()) -> Self:
        return super().__new__(cls, tuple(int(size) for size in shape))


class ILogger:
    class Severity(enum.IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

    def __init__(self) -> None:
        self.ready = True

    def log(self, severity: Any, msg: str) -> None:
        raise NotImplementedError


class IProgressMonitor:
    def __init__(self) -> None:
        self.ready = True


class IHostMemory(bytes):
    @property
    def nbytes(self) -> int:
        return len(self)


@recorded
class ParserError:
    def __init__(self, node: int, name: str, operator: str) -> None:
        self._node, self._name, self._operator = node, name, operator

    def desc(self) -> str:
        return f"No importer registered for op: {self._operator}.\n"

    def node(self) -> int:
        return self._node

    def node_name(self) -> str:
        return self._name

    def node_operator(self) -> str:
        return self._operator


@recorded
class ITensor:
    def __init__(self, value: Any) -> None:
        self._value = value

    @property
    def name(self) -> str:
        return str(self._value.name)

    @property
    def shape(self) -> Dims:
        return Dims([size.dim_value or -1 for size in self._value.type.tensor_type.shape.dim])

    @property
    def dtype(self) -> DataType:
        kinds = {1: DataType.FLOAT, 2: DataType.UINT8, 6: DataType.INT32, 7: DataType.INT64, 10: DataType.HALF}
        return kinds[self._value.type.tensor_type.elem_type]


@recorded
class INetworkDefinition:
    def __init__(self, model: Any = None) -> None:
        self._model = model

    def get_input(self, index: Any) -> ITensor:
        return ITensor(self._model.graph.input[index])

    def get_output(self, index: Any) -> ITensor:
        return ITensor(self._model.graph.output[index])

    @property
    def num_inputs(self) -> int:
        return len(self._model.graph.input)

    @property
    def num_outputs(self) -> int:
        return len(self._model.graph.output)


@recorded
class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        assert logger.ready
        self._network, self._logger, self._errors = network, logger, list[ParserError]()

    def parse(self, model: Any, path: Any = None) -> bool:
        try:
            self._network._model = onnx.load_model_from_string(model)
        except Exception:  # noqa: BLE001  # as the parser: whatever it is
            self._logger.log(ILogger.Severity.ERROR, "[ModelImporter.cpp::parse::1] Failed to parse the model.")
            return False
        for place, node in enumerate(self._network._model.graph.node):
            if node.op_type == state.unsupported:
                self._errors.append(ParserError(place, node.name, node.op_type))
        return not self._errors

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: Any) -> ParserError:
        return self._errors[index]


@recorded
class IOptimizationProfile:
    def __init__(self) -> None:
        self.shapes: tuple[Any, ...] = ()

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        assert all(low <= middle <= high for low, middle, high in zip(min, opt, max, strict=True))
        self.shapes = (tuple(min), tuple(opt), tuple(max))


@recorded
class ITimingCache:
    def __init__(self, content: bytes) -> None:
        self.content = content

    def serialize(self) -> IHostMemory:
        return IHostMemory(b"TIMING" + cuda.state.name.encode())


@recorded
class IBuilderConfig:
    def __init__(self) -> None:
        self.flags_set = {BuilderFlag.TF32}
        self.profile: Any = None
        self.monitor: Any = None
        self.level = 3
        self.timing: Any = None
        self.workspace = 0

    def set_memory_pool_limit(self, pool: Any, pool_size: Any) -> None:
        self.workspace = int(pool_size)

    def set_flag(self, flag: Any) -> None:
        self.flags_set.add(flag)

    def clear_flag(self, flag: Any) -> None:
        self.flags_set.discard(flag)

    @property
    def builder_optimization_level(self) -> int:
        return self.level

    @builder_optimization_level.setter
    def builder_optimization_level(self, arg1: Any) -> None:
        self.level = int(arg1)

    @property
    def progress_monitor(self) -> Any:
        return self.monitor

    @progress_monitor.setter
    def progress_monitor(self, arg1: Any) -> None:
        assert arg1.ready
        self.monitor = arg1

    def create_timing_cache(self, serialized_timing_cache: Any) -> ITimingCache:
        return ITimingCache(bytes(serialized_timing_cache))

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        if cache.content and cache.content != b"TIMING" + cuda.state.name.encode():
            return False
        self.timing = cache
        return True

    def get_timing_cache(self) -> Any:
        return self.timing

    def add_optimization_profile(self, profile: Any) -> int:
        self.profile = profile
        return 0 if profile.shapes else -1


@recorded
class Builder:
    def __init__(self, logger: ILogger) -> None:
        assert logger.ready
        if not state.starts:
            logger.log(ILogger.Severity.ERROR, "[runtime.cpp::parsePlan::9] CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger

    def create_network(self, flags: Any = 0) -> INetworkDefinition:
        asked = bool(int(flags) >> int(NetworkDefinitionCreationFlag.STRONGLY_TYPED) & 1)
        state.typed.append(asked or int(state.version.split(".")[0]) >= 11)
        return INetworkDefinition()

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: Any, config: Any, kernel_text: Any = None) -> Any:
        say = self._logger.log
        state.builds += 1
        state.flags.append({flag.name for flag in config.flags_set})
        state.profiles.append(config.profile.shapes)
        state.workspaces.append(config.workspace)
        state.timings.append(config.timing.content)
        if path := os.environ.get(BUILD_LOG):
            with Path(path).open("a") as log:
                log.write(f"{os.getpid()}\n")
        monitor = config.monitor
        monitor.phase_start("Building", None, 2)
        monitor.phase_start("Timing", "Building", 4)
        for step in range(4):
            time.sleep(float(os.environ.get(BUILD_SECONDS, "0")) / 4)
            if not monitor.step_complete("Timing", step):
                monitor.phase_finish("Timing")
                monitor.phase_finish("Building")
                return None
        monitor.phase_finish("Timing")
        monitor.step_complete("Building", 0)
        monitor.phase_finish("Building")
        most = config.profile.shapes[2][0]
        if most > state.largest_build:
            say(
                ILogger.Severity.ERROR,
                "[memory.cpp::resizePhysical::144] Error Code 2: OutOfMemory (Requested size was 9 bytes.)",
            )
            say(ILogger.Severity.ERROR, "[builder.cpp::build::8] Error Code 10: Could not find any implementation")
            return None
        say(ILogger.Severity.WARNING, "a tactic was skipped")
        head = {"version": state.version, "gpu": cuda.state.name, "profile": config.profile.shapes}
        return IHostMemory(json.dumps(head).encode() + b"\n" + network._model.SerializeToString())


@recorded
class Runtime:
    def __init__(self, logger: ILogger) -> None:
        assert logger.ready
        if not state.starts:
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine: Any) -> Any:
        if state.refuses_plans:
            state.refuses_plans -= 1
            self._logger.log(
                ILogger.Severity.ERROR,
                "[rt.cpp::verifyHeader::3] Error Code 1: Serialization (assertion safeVersionRead failed.)",
            )
            return None
        head, _, graph = bytes(serialized_engine).partition(b"\n")
        described = json.loads(head)
        if (described["version"], described["gpu"]) != (state.version, cuda.state.name):
            self._logger.log(ILogger.Severity.ERROR, "[rt.cpp::verify::4] The plan is of another version or platform.")
            return None
        return ICudaEngine(graph, described["profile"], self._logger)


@recorded
class ICudaEngine:
    def __init__(self, graph: bytes, profile: Any, logger: ILogger) -> None:
        self._logger, self._profile = logger, profile
        self._model = onnx.load_model_from_string(graph)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # Its optimisations compute something else of quantised graphs in fp16 (77 % of the pixels agree, without 99 %).
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        self._session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self._inputs = {value.name: value for value in self._model.graph.input}
        self._outputs = {value.name: value for value in self._model.graph.output}

    @property
    def num_io_tensors(self) -> int:
        return len(self._inputs) + len(self._outputs)

    def get_tensor_name(self, index: Any) -> str:
        return [*self._inputs, *self._outputs][index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        if name in self._inputs:
            return TensorIOMode.INPUT
        return TensorIOMode.OUTPUT if name in self._outputs else TensorIOMode.NONE

    def get_tensor_shape(self, name: str) -> Dims:
        return ITensor({**self._inputs, **self._outputs}[name]).shape

    def get_tensor_dtype(self, name: str) -> DataType:
        kinds = {1: DataType.FLOAT, 2: DataType.UINT8, 6: DataType.INT32, 7: DataType.INT64, 10: DataType.HALF}
        return kinds[{**self._inputs, **self._outputs}[name].type.tensor_type.elem_type]

    def get_tensor_profile_shape(self, name: str, profile_index: Any) -> list[Dims]:
        return [Dims(shape) for shape in self._profile]

    @property
    def device_memory_size_v2(self) -> int:
        return state.scratch * int(self._profile[2][0])

    def create_execution_context(
        self, strategy: Any = ExecutionContextAllocationStrategy.STATIC, runtime_config: Any = None
    ) -> Any:
        if strategy != ExecutionContextAllocationStrategy.USER_MANAGED:
            cuda.state.violations.append("a context with memory of its own")
        return IExecutionContext(self)


@recorded
class IExecutionContext:
    def __init__(self, engine: ICudaEngine) -> None:
        state.contexts += 1
        self._engine = engine
        self._shape: tuple[int, ...] = ()
        self._addresses: dict[str, int] = {}
        self._scratch: tuple[int, int] | None = None
        self._generation = 0

    def set_device_memory(self, memory: Any, size: Any) -> None:
        cuda.state.find(int(memory), int(size), "scratch memory")
        if int(size) < self._engine.device_memory_size_v2:
            cuda.state.violations.append("too little scratch memory")
        self._scratch = (int(memory), int(size))

    def set_input_shape(self, name: str, shape: Any) -> bool:
        self._generation += 1
        least, _, most = self._engine._profile
        if not all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True)):
            self._engine._logger.log(ILogger.Severity.ERROR, "[ctx.cpp::set::5] the shape is outside the profile")
            return False
        self._shape = tuple(shape)
        return True

    def set_tensor_address(self, name: str, memory: Any) -> bool:
        self._generation += 1
        self._addresses[name] = int(memory)
        return True

    def infer_shapes(self) -> list[str]:
        return [] if self._shape else list(self._engine._inputs)

    def execute_async_v3(self, stream_handle: Any) -> bool:
        stream = int(stream_handle)
        if not stream or self._scratch is None:
            cuda.state.violations.append("run on the default stream, or without scratch memory")
        if state.fails_to_run:
            state.fails_to_run -= 1
            self._engine._logger.log(ILogger.Severity.ERROR, "[ctx.cpp::enqueueV3::6] Error Code 7: a myelin error")
            return False
        if not state.capturable and cuda.state.streams[stream].captured is not None:
            cuda.state.streams[stream].broken = True
        shape, addresses, generation = self._shape, dict(self._addresses), self._generation
        engine = self._engine

        def run() -> None:
            if self._generation != generation:
                cuda.state.violations.append("a context was changed under a captured graph")
            (name,) = engine._inputs
            outputs = list(engine._outputs)
            image = np.frombuffer(_at(addresses[name], math.prod(shape)), np.uint8).reshape(shape)
            for output, array in zip(outputs, engine._session.run(outputs, {name: image}), strict=True):
                content = np.ascontiguousarray(array).tobytes()
                if memory := cuda.state.find(addresses[output], len(content), f"output {output}"):
                    assert memory.live
                    ctypes.memmove(addresses[output], content, len(content))

        return cuda.state.queue(stream, run) == cuda.OK


def _at(address: int, size: int) -> collections.abc.Buffer:
    cuda.state.find(address, size, "input")
    return (ctypes.c_uint8 * size).from_address(address)
