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


def drawn_tree() -> dict[str, tuple[str | None, str | None, str]]:
    """Parent, refined builtin and code of each class, as the module's docstring draws them."""
    tree: dict[str, tuple[str | None, str | None, str]] = {}
    path: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^([\s│├└─]*)([A-Z]\w+Error)\b(?: \((\w+)\))? +(\w+)", line)
        if match:
            indent, name, builtin, code = len(match[1]), match[2], match[3], match[4]
            while path and path[-1][0] >= indent:
                path.pop()
            tree[name] = (path[-1][1] if path else None, builtin, code)
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
            cls.code,
        )
        for name, cls in CLASSES.items()
    }
    assert drawn_tree() == actual


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_every_error_says_what_it_is(name: str) -> None:
    assert CLASSES[name].__doc__
    assert issubclass(CLASSES[name], errors.InnAutomlError)


def test_every_class_has_a_code_of_its_own() -> None:
    assert all("code" in vars(cls) for cls in CLASSES.values())
    assert {cls.code: cls for cls in CLASSES.values()} == errors.BY_CODE
    assert len(errors.BY_CODE) == len(CLASSES)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in errors.BY_CODE)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_errors_cross_processes(name: str) -> None:
    error = CLASSES[name].from_message("the fault, the value, the remedy")
    error.status, error.request_id = 422, "req_1"
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert type(again) is CLASSES[name]
    assert str(again) == "the fault, the value, the remedy"
    assert (again.code, again.status, again.request_id) == (error.code, 422, "req_1")


def test_an_unknown_name_comes_with_the_nearest_one() -> None:
    error = errors.UnknownNameError("model", "restnet", ["mlp", "resnet", "convnet"], "the job")
    assert str(error) == (
        "unknown model 'restnet' in the job: did you mean 'resnet'? Known are convnet, mlp, resnet."
    )
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (str(again), again.name, again.known) == (
        str(error),
        "restnet",
        ["convnet", "mlp", "resnet"],
    )


def test_a_name_like_no_other_comes_with_all_of_them() -> None:
    assert str(errors.UnknownNameError("runtime", "tflite", ["onnxruntime-cpu"])) == (
        "unknown runtime 'tflite': known are onnxruntime-cpu."
    )
