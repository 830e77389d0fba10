"""Writes the reference of the HTTP API as Markdown, from the gateway's `/openapi.json`."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

Schema = Mapping[str, Any]

DEPTH = 4
"""Fields are described down to this level; what lies deeper is only named."""
UNIONS = ("anyOf", "oneOf")
HEADINGS = ("field", "type", "meaning")

HEAD = """\
# HTTP API

Every endpoint of the gateway, as its `/openapi.json` describes it. [The guide](../docs/api.md)
explains how to use them, and [Errors](../docs/errors.md) what to do about each error. You can try
them in the interactive documentation of your own gateway, at its path `/docs`.
"""


def describe_api(document: Schema) -> str:
    """Return the whole page.

    Args:
        document: The OpenAPI document.
    """
    operations = [
        (path, method, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    tags = dict.fromkeys(operation["tags"][0] for _, _, operation in operations)
    schemas = document["components"]["schemas"]
    parts = [HEAD]
    for tag in sorted(tags, key=lambda tag: tag != "embeddings"):
        parts.append(f"\n## {tag.capitalize()}\n")
        # One operation that answers at several paths is one entry.
        entries: dict[tuple[str, str], tuple[list[str], Schema]] = {}
        for path, method, operation in operations:
            if operation["tags"][0] == tag:
                key = (method, operation["summary"])
                entries.setdefault(key, ([], operation))[0].append(f"{method.upper()} {path}")
        for lines, operation in entries.values():
            parts += _operation(lines, operation, schemas)
    return "".join(parts)


def _operation(lines: list[str], operation: Schema, schemas: Schema) -> Iterator[str]:
    yield f"\n### {operation['summary'].capitalize().replace('api', 'API')}\n\n"
    yield f"{', '.join(f'`{each}`' for each in lines)}\n\n"
    yield operation.get("description", "") + "\n"
    if parameters := operation.get("parameters"):
        yield _table(
            ("parameter", "in", "type", "meaning"),
            (
                (
                    f"`{each['name']}`",
                    each["in"],
                    *_described(each["schema"] | _words(each), schemas),
                )
                for each in parameters
            ),
        )
    for media, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"\nBody, `{media}`:\n"
        yield _fields(content["schema"], schemas)
    for status, response in operation["responses"].items():
        if status.startswith("2"):
            yield f"\nAnswer, {status}: {response['description']}\n"
            for content in response.get("content", {}).values():
                yield _fields(content.get("schema", {}), schemas)
            yield _table(
                ("header", "meaning"),
                (
                    (f"`{name}`", header["description"])
                    for name, header in response.get("headers", {}).items()
                ),
            )


def _words(parameter: Schema) -> Schema:
    return {key: parameter[key] for key in ("description",) if key in parameter}


def _fields(schema: Schema, schemas: Schema) -> str:
    tables = [
        (each.get("title"), _table(HEADINGS, _rows(each, schemas, prefix="", depth=0)))
        for each in _alternatives(schema, schemas)
    ]
    if len(tables) == 1:
        return tables[0][1]
    return "".join(f"\n*{title}*\n{table}" for title, table in tables)


def _rows(
    schema: Schema, schemas: Schema, *, prefix: str, depth: int
) -> Iterator[tuple[str, str, str]]:
    """Yield a row for each field of an object, and for those of the objects in it."""
    required = schema.get("required", ())
    for name, field in schema.get("properties", {}).items():
        kind, meaning = _described(field, schemas)
        path = f"{prefix}{name}"
        yield f"`{path}`" + (" (required)" if name in required else ""), kind, meaning
        for each in _alternatives(field, schemas):
            inner = each
            path_inside = path
            if each.get("type") == "array":
                (inner, *_) = _alternatives(each.get("items", {}), schemas) or [{}]
                path_inside = f"{path}[]"
            if inner.get("properties") and depth < DEPTH:
                yield from _rows(inner, schemas, prefix=f"{path_inside}.", depth=depth + 1)


def _resolved(schema: Schema, schemas: Schema) -> Schema:
    while "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        own = {key: value for key, value in schema.items() if key != "$ref"}
        schema = {"title": name} | schemas[name] | own
    return schema


def _alternatives(schema: Schema, schemas: Schema) -> list[Schema]:
    """Return the schemas that a value may have, without null."""
    schema = _resolved(schema, schemas)
    unions = [each for union in UNIONS for each in schema.get(union, ())]
    if not unions:
        return [schema] if schema.get("type") != "null" else []
    return [found for each in unions for found in _alternatives(each, schemas)]


def _described(schema: Schema, schemas: Schema) -> tuple[str, str]:
    """Return a field's type, and its meaning with its default."""
    resolved = _resolved(schema, schemas)
    kinds = dict.fromkeys(_kind(each, schemas) for each in _alternatives(schema, schemas))
    meaning = resolved.get("description", "")
    default = resolved.get("default")
    if default not in (None, {}, [], ""):
        shown = str(default).lower() if isinstance(default, bool) else default
        meaning = f"{meaning} Default: `{shown}`."
    return " or ".join(kinds), meaning.strip()


def _kind(schema: Schema, schemas: Schema) -> str:
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return " or ".join(f"`{each}`" for each in schema["enum"])
    kind = schema.get("type", "any")
    if kind == "array":
        items = dict.fromkeys(
            _kind(each, schemas) for each in _alternatives(schema.get("items", {}), schemas)
        )
        return f"list of {' or '.join(items)}"
    least = schema.get("minimum", schema.get("minLength"))
    most = schema.get("maximum", schema.get("maxLength"))
    if most is not None:
        unit = " characters" if kind == "string" else ""
        return f"{kind}, {least or 0} to {most}{unit}"
    return f"{kind}, {least} or more" if least and kind != "string" else kind


def _table(head: tuple[str, ...], rows: Any) -> str:
    lines = [
        " | ".join(re.sub(r"\s+", " ", each).replace("|", "\\|") for each in row) for row in rows
    ]
    if not lines:
        return ""
    rule = " | ".join("---" for _ in head)
    return "\n" + "".join(f"| {line} |\n" for line in (" | ".join(head), rule, *lines))
