"""The API's own description: one OpenAPI 3.1 document from the routes, and the same for tools that only read 3.0.

`document` is what /api/v1/openapi.json serves and what the web app's types are generated from.
"""

import copy
import re
from collections.abc import Callable
from typing import Any

import msgspec
from litestar import Litestar, Request
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.plugins import JsonRenderPlugin

from annotomy.http.answers import add_refusals

Json = dict[str, Any]
OperationId = Callable[[Any, Any, Any], str]

_METHODS = frozenset({"get", "put", "post", "delete", "options", "head", "patch", "trace"})
_PATH_PARAMETER = re.compile(r"\{(\w+)\}")
_LEVELS = {
    "study_instance_uid": "OfStudy",
    "series_instance_uid": "OfSeries",
    "sop_instance_uid": "OfInstance",
    "frame_list": "OfFrames",
    "version": "OfVersion",
}


def per_level(name: str) -> OperationId:
    """The operation id of a handler that stands at several paths (levels of DICOMweb, versions): each gets its own."""

    def operation_id(_handler: Any, _method: Any, components: Any) -> str:
        parameters = [component.name for component in components if not isinstance(component, str)]
        return name + (_LEVELS.get(parameters[-1], "") if parameters else "")

    return operation_id


def document(app: Litestar) -> Json:
    """OpenAPI 3.1, complete."""
    schema = copy.deepcopy(app.openapi_schema.to_schema())
    # The framework keeps the paths of one handler in a set: without an order the document differs from start to start.
    schema["paths"] = dict(sorted(schema["paths"].items()))
    options = _options(app)
    for path, item in schema["paths"].items():
        for method in sorted(_METHODS & item.keys()):
            operation = item[method]
            _add_path_parameters(path, operation)
            _drop_null_bodies(operation)
            opt = options[method, path.rstrip("/")]
            _add_what_is_streamed(operation, opt)
            add_refusals(method, operation, opt, schema)
    for component in schema["components"]["schemas"].values():
        if "properties" in component:
            # Of the field that happened to be met first, which differs from start to start; it is none of the type's.
            component.pop("default", None)
    return schema


def document_30(app: Litestar) -> Json:
    """OpenAPI 3.0.3. What 3.0 cannot say is said in its own way (`nullable`) or left out, never said wrongly."""
    return to_30(document(app))


class DocumentPlugin(JsonRenderPlugin):
    """Answers a document as JSON. The routes of a running process never change, so it is made once."""

    def __init__(self, path: str, make: Callable[[Litestar], Json]) -> None:
        super().__init__(path=path)
        self._make = make
        self._made: bytes | None = None

    def render(self, request: Request[Any, Any, Any], openapi_schema: Json) -> bytes:
        del openapi_schema
        if self._made is None:
            self._made = msgspec.json.encode(self._make(request.app), enc_hook=str)
        return self._made


def _options(app: Litestar) -> dict[tuple[str, str], Json]:
    """The `opt` of the handler behind each method and path."""
    return {
        (method.lower(), str(route.path_format).rstrip("/")): dict(handler.opt)
        for route in app.routes
        for handler in getattr(route, "route_handlers", [])
        if isinstance(handler, HTTPRouteHandler)
        for method in handler.http_methods
    }


def _add_what_is_streamed(operation: Json, opt: Json) -> None:
    """Bodies that a handler reads or writes as a stream, which the framework cannot know: `opt["takes"]`, `opt["gives"]`.

    `takes` is media types of the request; `gives` is media types, or a mapping of status to media types, of answers.
    """
    takes: tuple[str, ...] = opt.get("takes", ())
    if takes:
        operation["requestBody"] = {"content": {name: {"schema": _anything(name)} for name in takes}}
    gives: Any = opt.get("gives", {})
    if not isinstance(gives, dict):
        gives = {next(status for status in operation["responses"] if status.startswith("2")): gives}
    for status, names in gives.items():
        answer = operation["responses"].setdefault(str(status), {"description": "Answer"})
        if names:
            answer["content"] = {name: {"schema": _anything(name)} for name in names}
        else:
            answer.pop("content", None)


def _anything(media_type: str) -> Json:
    return {} if media_type.endswith("json") else {"type": "string", "format": "binary"}


def _add_path_parameters(path: str, operation: Json) -> None:
    """Handlers at several levels take their path as a whole, so the framework sees no parameter in it."""
    parameters: list[Json] = operation.setdefault("parameters", [])
    named = {one["name"] for one in parameters if one["in"] == "path"}
    parameters += [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PATH_PARAMETER.findall(path)
        if name not in named
    ]

    for one in parameters:
        if one["in"] == "path" and one["schema"].get("format") == "uri":
            del one["schema"]["format"]  # the rest of a path (`{name:path}`), which the framework takes for an address

    def place(one: Json) -> tuple[bool, int, str, str]:
        return one["in"] != "path", path.find(f"{{{one['name']}}}"), one["in"], one["name"]

    parameters.sort(key=place)  # they come from a set of the framework's, too
    if not parameters:
        del operation["parameters"]


def _drop_null_bodies(operation: Json) -> None:
    """An answer without a body (204) has no content at all, not one of type null."""
    for response in operation["responses"].values():
        content = response.get("content", {})
        if content and all(one.get("schema") == {"type": "null"} for one in content.values()):
            del response["content"]


def to_30(schema: Json) -> Json:
    """Pure. OpenAPI 3.1 takes JSON Schema 2020-12; 3.0 takes an older dialect without null types, const and arrays of types."""
    converted = _schema_30(schema)
    converted["openapi"] = "3.0.3"
    converted.pop("jsonSchemaDialect", None)
    converted.pop("webhooks", None)
    info, licence = converted["info"], converted["info"].get("license")
    info.pop("summary", None)
    if licence is not None:
        licence.pop("identifier", None)
    return converted


def _schema_30(node: Any) -> Any:
    if isinstance(node, list):
        return [_schema_30(one) for one in node]
    if not isinstance(node, dict):
        return node
    told = dict(node)
    _null_by_flag(told)
    converted = {key: _schema_30(value) for key, value in told.items()}
    if converted.get("type") == "null":
        converted |= {"type": "string", "nullable": True, "enum": [None]}
    if "const" in converted:
        converted["enum"] = [converted.pop("const")]
    if isinstance(converted.get("examples"), list):
        # Media types keep their `examples`, which is an object; a schema has one `example` only.
        examples = converted.pop("examples")
        if examples:
            converted["example"] = examples[0]
    for bound in ("exclusiveMinimum", "exclusiveMaximum"):
        if isinstance(converted.get(bound), int | float) and not isinstance(converted[bound], bool):
            converted[bound.replace("exclusiveM", "m")] = converted[bound]
            converted[bound] = True
    for key in ("contentEncoding", "contentMediaType", "unevaluatedProperties", "prefixItems", "$schema"):
        if key in converted and not isinstance(converted[key], dict):
            del converted[key]
    if converted.get("required") == []:  # 3.0 wants at least one name
        del converted["required"]
    if converted.get("type") == "array":
        converted.setdefault("items", {})
    if "$ref" in converted and len(converted) > 1 and converted.get("nullable"):
        converted = {"allOf": [{"$ref": converted["$ref"]}], "nullable": True}
    return converted


def _null_by_flag(schema: Json) -> None:
    """`type: [x, null]` and `oneOf: [x, {type: null}]` become x with `nullable: true`."""
    kinds = schema.get("type")
    if isinstance(kinds, list):
        rest = [kind for kind in kinds if kind != "null"]
        schema["nullable"] = len(rest) < len(kinds)
        if len(rest) == 1:
            schema["type"] = rest[0]
        else:
            del schema["type"]
            schema["anyOf"] = [{"type": kind} for kind in rest]
    for word in ("oneOf", "anyOf"):
        choices = schema.get(word)
        if not isinstance(choices, list):
            continue
        rest = [one for one in choices if one.get("type") != "null"]
        if len(rest) == len(choices):
            continue
        del schema[word]
        if len(rest) == 1:
            schema.update(rest[0])
        elif rest:
            schema[word] = rest
        schema["nullable"] = True
