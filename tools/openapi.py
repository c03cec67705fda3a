"""The description of the JSON API (OpenAPI 3.1), made from its table of operations."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec

import exporter
from exporter.web import api
from exporter.web.api.endpoints import OPERATIONS, Operation
from exporter.web.api.models import Error
from exporter.web.api.parameters import Choice, Number, Parameter

FILE = Path(api.__file__).parent / "openapi.json"
"""What the service serves at /api/v1/openapi.json."""


def text() -> str:
    """The description as JSON."""
    return msgspec.json.format(msgspec.json.encode(document()), indent=2).decode() + "\n"


def document() -> dict[str, Any]:
    """The whole description."""
    shown = [operation.returns for operation in OPERATIONS]
    _, schemas = msgspec.json.schema_components(
        (*shown, Error), ref_template="#/components/schemas/{name}"
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "azure-batch-exporter",
            "version": exporter.__version__,
            "summary": "What the exporter knows of Azure Batch jobs, as JSON.",
            "description": "Nothing here asks Azure anything: answers are what the polls have left."
            " What is not known is absent. Clients should pass over members that they do not know:"
            " within version 1 members and parameters may be added, and none is taken away.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"basic": []}],
        "paths": {operation.path: {"get": _get(operation)} for operation in OPERATIONS},
        "components": {
            "schemas": {name: _schema(schema) for name, schema in sorted(schemas.items())},
            "securitySchemes": {"basic": {"type": "http", "scheme": "basic"}},
            "responses": {
                "Unauthorized": _text("Where the web configuration has users: none was given."),
                "TooManyRequests": _text("Past the rate limit of the web configuration."),
                "Busy": _text("Past --web.max-requests."),
            },
        },
    }


def _get(operation: Operation) -> dict[str, Any]:
    responses: dict[str, Any] = {
        "200": {
            "description": "The answer.",
            "content": {"application/json": {"schema": _ref(operation.returns)}},
        },
        "400": _error("A parameter is unknown, or is not what it may be."),
        "401": {"$ref": "#/components/responses/Unauthorized"},
        "429": {"$ref": "#/components/responses/TooManyRequests"},
        "503": {"$ref": "#/components/responses/Busy"},
    }
    if any(parameter.required for parameter in operation.parameters):
        responses["404"] = _error("It is not there.")
    return {
        "operationId": operation.name,
        "summary": operation.summary,
        "parameters": [_parameter(each) for each in operation.parameters],
        "responses": dict(sorted(responses.items())),
    }


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": "query",
        "required": parameter.required,
        "description": parameter.description,
        "schema": _values(parameter),
    }


def _values(parameter: Parameter) -> dict[str, Any]:
    """What a parameter may be, as JSON schema. "" is as if it were not given."""
    match parameter:
        case Number(least=least, most=most, default=default):
            return {"type": "integer", "minimum": least, "maximum": most, "default": default}
        case Choice(words=words, default=default):
            found = {"type": "string", "enum": [*words, ""]}
            return found | ({"default": default} if default else {})
        case _:
            return {"type": "string", **({"minLength": 1} if parameter.required else {})}


def _ref(model: type) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _error(description: str) -> dict[str, Any]:
    content = {"application/json": {"schema": _ref(Error)}}
    return {"description": description, "content": content}


def _text(description: str) -> dict[str, Any]:
    return {"description": description, "content": {"text/plain": {"schema": {"type": "string"}}}}


def _schema(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema as others write it: no titles, and null is never there, since that is left out."""
    return {
        key: _clean(value) if key != "description" else re.sub(r"\s+", " ", value)
        for key, value in schema.items()
        if key != "title"
    }


def _clean(value: Any) -> Any:
    if isinstance(value, list):
        return [_clean(each) for each in value]
    if not isinstance(value, dict):
        return value
    if options := [each for each in value.get("anyOf", ()) if each != {"type": "null"}]:
        assert len(options) == 1, value
        return _clean(options[0])
    return {key: _clean(each) for key, each in value.items()}
