"""Writes the references that follow from code.

Two are committed, so that they can be read without a build, between the comments
`<!-- begin generated: NAME -->` and `<!-- end generated: NAME -->`:

    budget   the keys of `budget.yaml`, from the pydantic models and their attribute docs
    cli      the commands, from click

`python docs/_ext/generated.py --write` brings them up to date. One is filled in while Sphinx reads
the page, at the comment `<!-- generated: NAME -->`:

    http     the endpoints, from the coordinator's OpenAPI document

Links to files outside of `docs/`, such as benchmark reports, become downloads.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer

_OUTSIDE = re.compile(
    r"(\]\(|^\[[^\]]+\]: )((?:\.\./)+(?:benchmarks/|CONTRIBUTING\.md))(?:#[\w-]+)?", re.MULTILINE
)
_MARK = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)
_COMMITTED = re.compile(
    r"(^<!-- begin generated: (\w+) -->\n).*?(^<!-- end generated: \2 -->$)",
    re.MULTILINE | re.DOTALL,
)
_WIDTH = 100


def attribute_docs(model: type[BaseModel]) -> dict[str, str]:
    """By field, the docstring below it in the source of the model's module."""
    found = ModuleAnalyzer.for_module(model.__module__).find_attr_docs()
    return {
        name: " ".join(line.strip() for line in lines).strip()
        for (owner, name), lines in found.items()
        if owner == model.__name__
    }


def budget() -> str:
    """The keys of a budget: a section a model, a list item a key."""
    from inn_automl.core.spec import DeviceBudget, SearchBudget, TrainingBudget

    sections = (
        ("devices[]", DeviceBudget),
        ("training", TrainingBudget),
        ("search", SearchBudget),
    )
    return "\n".join(line for name, model in sections for line in _section(name, model))


def _section(name: str, model: type[BaseModel]) -> Iterator[str]:
    docs = attribute_docs(model)
    yield f"## `{name}`\n"
    for key, field in model.model_fields.items():
        yield _item(f"`{name}.{key}`: {_kind(field)}. {docs.get(key, '')}")
    yield ""


def _kind(field: FieldInfo) -> str:
    limits = [text for item in _metadata(field) if (text := _limit(item))]
    names = {"tuple": "list", "int": "whole number", "float": "number", "str": "text"}
    kind = next((word for name, word in names.items() if name in str(field.annotation)), "value")
    if field.is_required():
        default = "required"
    elif field.default is None:
        default = "default: none"
    elif isinstance(field.default, tuple):
        default = f"default: `[{', '.join(map(str, field.default))}]`"
    else:
        value = f"{field.default:g}" if kind == "number" else str(field.default)
        default = f"default: `{value}`"
    return ", ".join([kind.capitalize(), *limits, default])


def _metadata(field: FieldInfo) -> Iterator[Any]:
    yield from field.metadata
    for inner in getattr(field.annotation, "__args__", ()):
        yield from getattr(inner, "__metadata__", ())


def _limit(item: Any) -> str:
    """One constraint of a field in words; empty for validators."""
    if isinstance(item, FieldInfo):
        return ", ".join(text for inner in item.metadata if (text := _limit(inner)))
    for name, words in (("gt", "above"), ("ge", "at least"), ("lt", "below"), ("le", "at most")):
        if (value := getattr(item, name, None)) is not None:
            return f"{words} {value:g}"
    return ""


def cli() -> str:
    """The commands and their options: a section a command."""
    from inn_automl.cli.main import commands

    context = click.Context(commands, info_name="inn-automl", **commands.context_settings)
    return "\n".join(_commands(commands, context, "inn-automl"))


def _commands(group: click.Group, context: click.Context, path: str) -> Iterator[str]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        inner = click.Context(command, info_name=name, parent=context)
        words = f"{path} {name}"
        usage = " ".join(command.collect_usage_pieces(inner))
        yield f"## `{words}`\n\n{_paragraphs(command.help)}\n\n```text\n{words} {usage}\n```\n"
        items = []
        for parameter in command.get_params(inner):
            record = parameter.get_help_record(inner)
            if record and record[1] and "--help" not in record[0]:
                items.append(_item(f"`{record[0]}`: {_escaped(record[1])}"))
        if items:
            yield "\n".join(items) + "\n"
        if isinstance(command, click.Group):
            yield from _commands(command, inner, words)


def _paragraphs(text: str | None) -> str:
    blocks = (text or "").split("\n\n")
    return "\n\n".join(_wrapped(_escaped(" ".join(block.split()))) for block in blocks)


def _item(text: str) -> str:
    return _wrapped(f"- {text}", indent="  ")


def _wrapped(text: str, indent: str = "") -> str:
    """`text` in lines of at most 100 columns; inline code is not broken."""
    joined = re.sub(r"`[^`]+`", lambda code: code[0].replace(" ", "\0"), text)
    lines = textwrap.fill(
        joined,
        _WIDTH,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return lines.replace("\0", " ")


def _escaped(text: str) -> str:
    return re.sub(r"([\[\]<>*_|])", r"\\\1", text)


def http() -> str:
    """The endpoints, grouped by tag, with parameters, bodies and answers."""
    from inn_automl_services.coordinator.app import create_app
    from inn_automl_services.coordinator.settings import Settings

    settings = Settings(database_url="sqlite://", storage_url="memory://docs")
    document = create_app(settings).openapi()
    groups: dict[str, list[str]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            tag = operation.get("tags", [path.split("/")[2]])[0]
            groups.setdefault(tag, []).append(_operation(method, path, operation))
    sections = [
        f"## {tag.capitalize()}\n\n" + "\n".join(operations) for tag, operations in groups.items()
    ]
    schemas = document["components"]["schemas"].items()
    sections.append("## Schemas\n\n" + "\n".join(_fields(*item) for item in schemas))
    return "\n".join(sections)


def _fields(name: str, schema: dict[str, Any]) -> str:
    lines = [f"### Schema `{name}`\n"]
    if text := _paragraphs(schema.get("description")):
        lines.append(f"{text}\n")
    if "enum" in schema:
        lines.append("One of " + ", ".join(f"`{value}`" for value in schema["enum"]) + ".\n")
    for key, field in schema.get("properties", {}).items():
        need = ", required" if key in schema.get("required", ()) else ""
        told = _escaped(field.get("description", "").strip()) or _limits(field)
        lines.append(f"- `{key}` ({_type(field)}{need}){': ' + told if told else ''}")
    return "\n".join(lines) + "\n"


def _type(schema: dict[str, Any]) -> str:
    """The type of a JSON schema in words."""
    if "$ref" in schema:
        return f"`{schema['$ref'].rsplit('/', 1)[-1]}`"
    if options := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(_type(option) for option in options))
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return str(schema.get("type", "any"))


def _limits(schema: dict[str, Any]) -> str:
    """Default and bounds of a field of a JSON schema."""
    names = {"default": "default", "minimum": "at least", "maximum": "at most"}
    told = [f"{words} {schema[key]}" for key, words in names.items() if schema.get(key) is not None]
    return _escaped(", ".join(told))


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    lines = [f"### `{method.upper()} {path}`\n", f"{_paragraphs(operation['summary'])}.\n"]
    if "description" in operation:
        lines.append(f"{_paragraphs(operation['description'])}\n")
    for parameter in operation.get("parameters", []):
        told = _escaped(parameter.get("description", "").strip()) or _type(parameter["schema"])
        need = "required" if parameter.get("required") else "optional"
        lines.append(f"`{parameter['name']}` ({parameter['in']}, {need})\n: {told}\n")
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        lines.append(f"Body: `{kind}`{_schema(content)}.\n")
    answers = operation.get("responses", {})
    for status in (status for status in answers if status < "400"):
        kinds = ", ".join(
            f"`{kind}`{_schema(content)}"
            for kind, content in answers[status].get("content", {}).items()
        )
        words = _escaped(answers[status].get("description", "")).strip().rstrip(".")
        lines.append(f"- **{status}** {words}{': ' + kinds if kinds else ''}")
    if refusals := ", ".join(status for status in answers if status >= "400"):
        lines.append(f"- Refused with {refusals}: `application/problem+json`")
    return "\n".join(lines) + "\n"


def _schema(content: dict[str, Any]) -> str:
    schema = content.get("schema", {})
    reference = schema.get("$ref") or schema.get("items", {}).get("$ref", "")
    name = reference.rsplit("/", 1)[-1]
    many = "list of " if "items" in schema else ""
    return f" ({many}`{name}`)" if name else ""


COMMITTED: dict[str, Callable[[], str]] = {"budget": budget, "cli": cli}
BUILT: dict[str, Callable[[], str]] = {"http": http}


def fill(text: str, parts: Mapping[str, str]) -> str:
    """`text` with each mark replaced by the part that it names."""
    return _MARK.sub(lambda mark: parts[mark[1]], text)


def renew(text: str) -> str:
    """`text` of a page with what is committed between its marks generated again."""
    return _COMMITTED.sub(
        lambda found: f"{found[1]}\n{COMMITTED[found[2]]().rstrip()}\n\n{found[3]}", text
    )


@click.command()
@click.option("--write", is_flag=True, help="Bring the pages up to date.")
def main(write: bool) -> None:
    """Check that the committed references are those of the code."""
    stale = []
    for page in sorted(Path(__file__).parents[1].rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        if (renewed := renew(text)) != text:
            stale.append(page.name)
            if write:
                page.write_text(renewed, encoding="utf-8")
    if stale and not write:
        raise click.ClickException(f"not up to date: {', '.join(stale)}. Run `make reference`.")


def setup(app: Sphinx) -> dict[str, bool]:
    # At once, before autodoc imports modules as type checkers see them.
    parts = {name: generate() for name, generate in BUILT.items()}

    def read(app: Sphinx, docname: str, source: list[str]) -> None:
        source[0] = _OUTSIDE.sub(r"\1path:\2", fill(source[0], parts))

    app.connect("source-read", read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    main()
