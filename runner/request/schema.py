"""The JSON schema of requests and options, made from the declarations of the keys, for editors that complete and check.

Files in `experiments/` and most in `conf/` hold a part of a request, as Hydra composes it over the defaults: no key is
required, and any value may be an interpolation (`${…}`). What keys mean together is check.py's alone.
Source: https://json-schema.org/draft/2020-12
"""

import ast
import inspect
import re
import textwrap
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from itertools import pairwise
from typing import get_type_hints

import msgspec

from runner import backends, graders, methods
from runner.data.json_value import Json
from runner.request.hydra_config import home
from runner.request.keys import SECTIONS, RootKeys

Schema = dict[str, Json]

# `${…}` and `???` may stand for a value of any type until Hydra has composed the request.
INTERPOLATED: Schema = {"type": "string", "pattern": r"\$\{|^\?\?\?$"}
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def names() -> list[str]:
    """Return what there is a schema of: `request`, and each group whose files hold keys of their own."""
    return ["request", *SECTIONS, "grader"]


def of(name: str) -> Schema:
    """Return the schema of one of `names()`, complete by itself."""
    every = _definitions()
    parts = {each: every[each] for each in sorted(_needed(name, every))}
    what = f"A file of conf/{name}/." if name != "request" else "A request, or a part of one: experiments/, conf/."
    return {"$schema": DIALECT, "title": f"runner: {name}", "description": what, **_ref(name), "$defs": parts}


def meanings(owner: type) -> dict[str, str]:
    """Return the text under each field of a dataclass or struct, its parents' fields included."""
    # Python keeps no docstring of a field, so the source is read.
    bodies = [
        ast.parse(textwrap.dedent(inspect.getsource(each))).body[0].body  # type: ignore[attr-defined]
        for each in owner.__mro__
        if is_dataclass(each) or (issubclass(each, msgspec.Struct) and each is not msgspec.Struct)
    ]
    found: dict[str, str] = {}
    for node, text in (each for body in bodies for each in pairwise(body)):
        match node, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(said))):
                found.setdefault(name, " ".join(said.split()))
    return found


def _needed(name: str, parts: Schema) -> set[str]:
    """Return the parts that a part refers to, itself included, however indirectly."""
    found, left = set[str](), {name}
    while left:
        each = left.pop()
        found.add(each)
        left |= set(re.findall(r'"#/\$defs/(\w+)"', msgspec.json.encode(parts[each]).decode())) - found
    return found


@cache
def _definitions() -> Schema:
    """Return every part by its name: sections, methods, backends and graders, and `request` over them."""
    grader, structs = _graders()
    # A grader is checked by its own type, wherever it is given as JSON.
    own: Schema = {"anyOf": [{"type": "string"}, _ref("grader")]}
    parts: Schema = {name: _section(owner) for name, owner in SECTIONS.items()}
    owned: Schema = {name: _section(methods.load(name).hyperparameters) for name in methods.names()}
    for section, key in (("evaluation", "graders"), *((name, "grader") for name in owned)):
        properties = _properties(parts | owned, section)
        if key in properties:
            items: Schema = {"type": "array", "items": own}
            properties[key] = {**_object(properties[key]), "anyOf": [items if key == "graders" else own, INTERPOLATED]}
    places = {name: _section(backends.keys(name)) for name in backends.names()}
    backend: Schema = {"anyOf": list(places.values())}
    return {**parts, **owned, "backend": backend, "grader": grader, **structs, "request": _request(list(owned))}


def _request(known_methods: list[str]) -> Schema:
    root = _section(RootKeys)
    # What files say in addition to the declared keys: the method, Hydra's defaults and its own section.
    properties = _object(root["properties"])
    names: list[Json] = list(known_methods)
    properties["method"] = {"enum": names, "description": "How to learn; a file of conf/method/ sets it."}
    parts: Schema = {name: _ref(name) for name in (*SECTIONS, *known_methods, "backend")}
    properties |= parts
    properties["defaults"] = _defaults()
    properties["hydra"] = {"type": "object", "description": "Hydra's own keys: sweeps, launchers."}
    # Of a request that names its method, only that method's keys are some.
    rules: list[Json] = [
        {
            "if": {"properties": {"method": {"const": name}}, "required": ["method"]},
            "then": {"properties": {other: False for other in known_methods if other != name}},
        }
        for name in known_methods
    ]
    return {**root, "allOf": rules}


def _defaults() -> Schema:
    """Return the schema of Hydra's list of defaults: the options that come with the runner complete, others may be."""
    options = {path.name: sorted(each.stem for each in path.glob("*.yaml")) for path in (home() / "conf").iterdir()}
    overrides: Schema = {
        # A user's own conf/ has further options, so that any text is right.
        f"override /{group}": {"anyOf": [{"enum": [*found]}, {"type": "string"}]}
        for group, found in sorted(options.items())
        if found
    }
    choice: Schema = {"type": "object", "properties": overrides}
    return {"type": "array", "items": {"anyOf": [{"type": "string"}, choice]}, "description": "What it builds on."}


def _section(owner: type) -> Schema:
    """Return the schema of a dataclass of keys, nested ones within."""
    said, hints = meanings(owner), get_type_hints(owner, include_extras=True)
    properties: Schema = {}
    for field in fields(owner):
        hint = hints[field.name]
        if is_dataclass(hint) and isinstance(hint, type):
            properties[field.name] = _section(hint)
            continue
        value = field.default if field.default_factory is MISSING else field.default_factory()
        default: Schema = {} if value in (MISSING, "???") else {"default": msgspec.to_builtins(value)}
        given = {"description": said.get(field.name, ""), **default}
        properties[field.name] = {**given, "anyOf": [msgspec.json.schema(hint), INTERPOLATED]}
    return {
        "type": "object", "description": inspect.getdoc(owner) or "", "properties": properties,
        "additionalProperties": False,
    }  # fmt: skip


def _graders() -> tuple[Schema, Schema]:
    """Return the schema of any grader, by its `type`, and the definitions that it refers to."""
    kinds = {name: graders.kind(name) for name in graders.names()}
    # A header's secret is text in YAML, `$NAME`.
    _, found = msgspec.json.schema_components(list(kinds.values()), schema_hook=lambda _: {"type": "string"})
    for name, owner in kinds.items():
        struct = _object(found[owner.__name__])
        properties = _object(struct["properties"])
        for key, meaning in meanings(owner).items():
            if key in properties:
                properties[key] = {**_object(properties[key]), "description": meaning}
        struct["properties"] = {"type": {"const": name}, **properties}
        struct["required"] = ["type", *_listed(struct.get("required", []))]
        struct["additionalProperties"] = False
    names: list[Json] = list(kinds)
    rules: list[Json] = [
        {"if": {"properties": {"type": {"const": name}}, "required": ["type"]}, "then": _ref(owner.__name__)}
        for name, owner in kinds.items()
    ]
    any_kind: Schema = {"type": "object", "properties": {"type": {"enum": names}}, "required": ["type"]}
    return {**any_kind, "allOf": rules}, found


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _properties(parts: Schema, name: str) -> Schema:
    return _object(_object(parts[name])["properties"])


def _object(value: Json) -> Schema:
    assert isinstance(value, dict)
    return value


def _listed(value: Json) -> list[Json]:
    assert isinstance(value, list)
    return value
