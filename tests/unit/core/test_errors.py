from __future__ import annotations

import inspect
import pickle
import re

import pytest

from inn_automl.core import errors

CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and value.__module__ == errors.__name__
}


def drawn_tree() -> dict[str, tuple[str | None, str | None]]:
    """Parent and refined builtin of each class, as the module's docstring draws them."""
    tree: dict[str, tuple[str | None, str | None]] = {}
    path: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^([\s│├└─]*)([A-Z]\w+Error)\b(?: \((\w+)\))?", line)
        if match:
            indent, name, builtin = len(match[1]), match[2], match[3]
            while path and path[-1][0] >= indent:
                path.pop()
            tree[name] = (path[-1][1] if path else None, builtin)
            path.append((indent, name))
    return tree


def test_the_docstring_draws_the_tree_as_it_is() -> None:
    actual = {
        name: (
            next((base.__name__ for base in cls.__bases__ if base.__name__ in CLASSES), None),
            next(
                (
                    base.__name__
                    for base in cls.__bases__
                    if base.__module__ == "builtins" and base is not Exception
                ),
                None,
            ),
        )
        for name, cls in CLASSES.items()
    }
    assert drawn_tree() == actual


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_every_error_says_what_it_is(name: str) -> None:
    assert CLASSES[name].__doc__
    assert issubclass(CLASSES[name], errors.InnAutomlError)


@pytest.mark.parametrize("name", sorted(set(CLASSES) - {"UnknownNameError"}))
def test_errors_cross_processes(name: str) -> None:
    error = pickle.loads(pickle.dumps(CLASSES[name]("the fault, the value, the remedy")))  # noqa: S301 - our own
    assert type(error) is CLASSES[name]
    assert str(error) == "the fault, the value, the remedy"


def test_an_unknown_name_comes_with_the_nearest_one() -> None:
    error = errors.UnknownNameError("family", "restnet", ["mlp", "resnet", "convnet"], "the job")
    assert (
        str(error)
        == "the job: unknown family 'restnet': did you mean 'resnet'? Known: convnet, mlp, resnet."
    )
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (str(again), again.name, again.known) == (
        str(error),
        "restnet",
        ["convnet", "mlp", "resnet"],
    )


def test_a_name_like_no_other_comes_with_all_of_them() -> None:
    assert str(errors.UnknownNameError("runtime", "tflite", ["onnxruntime-cpu"])) == (
        "unknown runtime 'tflite': Known: onnxruntime-cpu."
    )
