"""A function that looks like another to whoever asks for its parameters.

`functools.wraps` would do for `inspect.signature`. But tools that take wrappers off follow its ``__wrapped__`` and
would take this one off too (accelerate's `unwrap_model`), and others read the names in ``__code__`` (`torch.fx`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from inspect import Parameter, Signature, signature
from types import CodeType, FunctionType, MethodType
from typing import Any

FREE = ("_dfa_first", "_dfa_run", "_dfa_second")  # names that no parameter has
INSTANCE = Parameter("_dfa_instance", Parameter.POSITIONAL_ONLY)
ANYTHING = Signature([Parameter("args", Parameter.VAR_POSITIONAL), Parameter("kwargs", Parameter.VAR_KEYWORD)])


def lookalike(
    forward: Callable[..., Any], run: Callable[..., Any], first: Any, second: Any, has_instance: bool
) -> FunctionType:
    """A function with the parameters of `forward` that returns ``run(first, second, *what it is called with)``.

    Of a decorated `forward` the code has the decorator's parameters, and what it shows is in ``__signature__``.

    Args:
        forward: A function whose first parameter is the instance; a method; or, in place of one, what is called without
            the instance.
        run: What is called.
        first: Its first argument.
        second: Its second.
        has_instance: Whether `forward` has a parameter for it; a method has.
    """
    bare: Any = forward.__func__ if isinstance(forward, MethodType) else forward
    readable = isinstance(bare, FunctionType) and "__signature__" not in vars(bare)
    shape = signature(bare, follow_wrapped=False) if readable else ANYTHING
    made = calling(shape if readable and has_instance else with_instance(shape), run, first, second)
    function = FunctionType(made.__code__, getattr(bare, "__globals__", globals()), closure=made.__closure__)
    functools.update_wrapper(function, bare, updated=())
    del function.__wrapped__  # type: ignore[attr-defined]
    if readable:
        function.__defaults__, function.__kwdefaults__ = bare.__defaults__, bare.__kwdefaults__
    shown = signature_of(bare)
    if shown != shape:
        function.__signature__ = shown if has_instance else with_instance(shown)  # type: ignore[attr-defined]
    return function


def calling(shape: Signature, run: Callable[..., Any], first: Any, second: Any) -> FunctionType:
    """A function with the parameters of `shape`, the values of their defaults left out."""
    parameters = [plainly(parameter) for parameter in shape.parameters.values()]
    source = (
        f"def make({', '.join(FREE)}):\n"
        f"    def forward{Signature(parameters)}:\n"
        f"        return _dfa_run(_dfa_first, _dfa_second, {', '.join(map(passed, parameters))})\n"
        "    return forward"
    )
    names: dict[str, Any] = {}
    exec(compile(source, "<the forward of an attached model>", "exec"), names)
    made: FunctionType = names["make"](first, run, second)
    return made


def plainly(parameter: Parameter) -> Parameter:
    """Without annotation, and with None for its default."""
    default = parameter.default if parameter.default is Parameter.empty else None
    return parameter.replace(annotation=Parameter.empty, default=default)


def passed(parameter: Parameter) -> str:
    """The parameter as an argument."""
    before: dict[Any, str] = {
        Parameter.VAR_POSITIONAL: "*",
        Parameter.VAR_KEYWORD: "**",
        Parameter.KEYWORD_ONLY: f"{parameter.name}=",
    }
    return before.get(parameter.kind, "") + parameter.name


def signature_of(function: Any) -> Signature:
    try:
        return signature(function)
    except (TypeError, ValueError):  # of a builtin
        return ANYTHING


def with_instance(shape: Signature) -> Signature:
    return shape.replace(parameters=[INSTANCE, *shape.parameters.values()])


def copied(function: FunctionType) -> FunctionType:
    """The same function with code of its own."""
    code: CodeType = function.__code__.replace()
    copy = FunctionType(code, function.__globals__, closure=function.__closure__)
    functools.update_wrapper(copy, function)
    del copy.__wrapped__  # type: ignore[attr-defined]
    copy.__defaults__, copy.__kwdefaults__ = function.__defaults__, function.__kwdefaults__
    return copy


def is_lookalike(forward: Any) -> bool:
    """Whether a function, or a method, was made here."""
    function = forward.__func__ if isinstance(forward, MethodType) else forward
    return isinstance(function, FunctionType) and function.__code__.co_freevars == FREE
