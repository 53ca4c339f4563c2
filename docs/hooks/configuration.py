"""The page docs/reference/configuration.md: every option of an experiment and of every component, from the classes."""

import ast
import importlib
import inspect
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import yaml
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import core_schema

from client.policy import Policy
from common.config.component import Component, Options, find, own_names
from common.config.experiment import Experiment
from deploy.study.bench.suite import Suite

Schema = dict[str, Any]
"""A JSON schema, as pydantic writes it."""

INTRO = """# Configuration reference

This page lists every option of an experiment. It is made from the code by `make reference`.

- An experiment is one YAML file with these options. `--set SECTION.OPTION=VALUE` changes one of them.
- You can leave out an option that is not required. "none" is YAML's `null`.
- Write a component as its name alone, `method: fedcmi`, or as its name with options, `method: {name: fedcmi, mu: 0.1}`.
  The components are listed after the sections: [data sets](#data-sets), [encoders](#encoders), [models](#models),
  [completers](#completers), [methods](#methods), [strategies](#strategies), [metrics](#metrics), [trackers](#trackers).
- Two other files are at the end of the page: the [policy of a site](#policy) and the [suite of a benchmark](#suite)."""
PLACES = {
    "data set": "`data.set` names one. `fedmosaic shard` makes its shards.",
    "encoder": "`model.encoders` names one for each modality.",
    "model": "`model.architecture` names one. The default is the model that the method needs.",
    "completer": "`completion` names one for each modality that is generated.",
    "method": "`method` names one: the local objective of every client.",
    "strategy": "`strategy` names one: the server's aggregation.",
    "metric": "`metrics` names some: figures besides the ones without options, which every run of their task has.",
    "tracker": "`fedmosaic run --track` names one. Trackers are not part of an experiment.",
}
PLURALS = {"strategy": "strategies"}
TYPES = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false", "null": "none"}
BOUNDS = {
    "minimum": "≥ {}",
    "exclusiveMinimum": "> {}",
    "maximum": "≤ {}",
    "exclusiveMaximum": "< {}",
    "multipleOf": "a multiple of {}",
    "pattern": "matching `{}`",
}


def reference() -> str:
    """The page in Markdown."""
    parts = [INTRO, *sections("", schema_of(Experiment))]
    for family in PLACES:
        plural = PLURALS.get(family, f"{family}s")
        parts.append(f"## {plural.capitalize()}\n\n{PLACES[family]}")
        for name in own_names(family):
            parts += component(name, find(family, name))
    parts += sections("policy", schema_of(Policy))
    parts += sections("suite", schema_of(Suite))
    return "\n\n".join(parts) + "\n"


class Described(GenerateJsonSchema):
    """JSON schemas with the descriptions of the options. pydantic's own way to read the text below a field
    (use_attribute_docstrings) fails for generic classes, as methods are, and costs time at every start."""

    def model_schema(self, schema: core_schema.ModelSchema) -> Schema:
        """The schema of one class."""
        made = super().model_schema(schema)
        for name, text in descriptions(schema["cls"]).items():
            made["properties"][name]["description"] = text
        return made


def schema_of(kind: type[Options]) -> Schema:
    """The schema of a class and of those that its options lead to."""
    return kind.model_json_schema(schema_generator=Described)


def descriptions(kind: type[Options]) -> dict[str, str]:
    """By option, the text below its field, in the class or in the class that it is inherited from."""
    found: dict[str, str] = {}
    for owner in reversed(kind.__mro__):
        if not issubclass(owner, Options) or not owner.__name__.isidentifier():  # a generic class with its parameters
            continue
        tree = ast.parse(inspect.getsource(owner)).body[0]
        assert isinstance(tree, ast.ClassDef)
        for option, text in pairwise(tree.body):
            match option, text:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(said))):
                    found[name] = inspect.cleandoc(said)
    return {name: said for name, said in found.items() if name in kind.model_fields}


def component(name: str, kind: type[Component]) -> Iterator[str]:
    """A component's section, with the docstrings of its file and of its class and its options, and the sections below
    it."""
    schema = schema_of(kind)
    known: Schema = schema.get("$defs", {})
    about = inspect.cleandoc(importlib.import_module(kind.__module__).__doc__ or "").split("\n\n")[0]
    yield f"### {name}\n\n{about}\n\n{schema['description']}\n\n{table(schema, known)}"
    yield from below(name, schema, known)


def sections(path: str, schema: Schema, definitions: Schema | None = None) -> Iterator[str]:
    """The section at a dotted path ("" for the top), and those below it."""
    known: Schema = schema.get("$defs", {}) if definitions is None else definitions
    heading = f"{'##' if '.' not in path else '###'} {path or 'experiment'}"
    yield f"{heading}\n\n{schema['description']}\n\n{table(schema, known)}"
    yield from below(path, schema, known)


def below(path: str, schema: Schema, known: Schema) -> Iterator[str]:
    """The sections to which the options of a section lead."""
    for option, given in schema.get("properties", {}).items():
        for name in references(given):
            tag = known[name]["properties"].get("name", {}).get("const")
            step = f"{path}.{option}".lstrip(".")
            yield from sections(f"{step}: {tag}" if tag else step, known[name], known)


def references(schema: Schema) -> Iterator[str]:
    """The definitions that a schema leads to."""
    if "$ref" in schema:
        yield schema["$ref"].rpartition("/")[2]
    values = schema.get("additionalProperties")
    for inner in [*schema.get("anyOf", []), *schema.get("oneOf", []), *([values] if isinstance(values, dict) else [])]:
        yield from references(inner)


def table(schema: Schema, definitions: Schema) -> str:
    """The options of an object, one per row."""
    options = {name: given for name, given in schema.get("properties", {}).items() if "const" not in given}
    if not options:
        return "No options."
    rows = [
        f"| `{name}` | {cell(words(given, definitions))} | {default(name, given, schema)} | "
        f"{cell(given.get('description', ''))} |"
        for name, given in options.items()
    ]
    return "\n".join(["| option | type | default | meaning |", "|---|---|---|---|", *rows])


def cell(text: str) -> str:
    """Text that may be in a table."""
    return text.replace("\n", " ").replace("|", r"\|")


def default(name: str, given: Schema, schema: Schema) -> str:
    """The default of an option as YAML has it."""
    if name in schema.get("required", []):
        return "**required**"
    if "$ref" in given:
        return "its defaults"
    value = given.get("default", [] if given.get("type") == "array" else {})
    return f"`{yaml.safe_dump(value, default_flow_style=True).splitlines()[0]}`"  # a scalar is followed by "..."


def words(given: Schema, definitions: Schema) -> str:
    """The type of an option in words."""
    if "enum" in given:
        return ", ".join(f"`{value}`" for value in given["enum"])
    if choices := given.get("anyOf") or given.get("oneOf"):
        return " or ".join(words(choice, definitions) for choice in choices)
    if "$ref" in given:
        tag = definitions[given["$ref"].rpartition("/")[2]]["properties"].get("name", {}).get("const")
        return f"`{tag}`" if tag else "section"
    if given.get("type") == "array":
        return f"list of {words(given['items'], definitions)}"
    if given.get("type") == "object":
        values = given.get("additionalProperties") or next(iter(given.get("patternProperties", {}).values()), True)
        of = words(values, definitions) if isinstance(values, dict) else "any"
        return "name with options" if of == "any" else f"mapping of names to: {of}"
    if "type" not in given:
        return "any"
    bounds = [text.format(given[bound]) for bound, text in BOUNDS.items() if bound in given]
    return " ".join([TYPES[given["type"]], ", ".join(bounds)]).strip()
