"""The API describes itself: validly, completely, in 3.1 and 3.0, and with a page over it that needs nothing from outside."""

import re

import pytest
from openapi_spec_validator import OpenAPIV30SpecValidator, OpenAPIV31SpecValidator

from annotomy.http.openapi import to_30
from annotomy.http.static_files import STATIC
from tests.support.application import Application

API = ("/api/", "/dicom-web")
FRAMEWORKS_OWN = ("/api/v1", "/api/v1/{path}")
"""Where the framework answers beside the documents."""


async def test_the_documents_are_valid(application: Application) -> None:
    for path, validator in (
        ("/api/v1/openapi.json", OpenAPIV31SpecValidator),
        ("/api/v1/openapi-3.0.json", OpenAPIV30SpecValidator),
    ):
        answer = await application.client.get(path)
        assert answer.status_code == 200
        validator(answer.json()).validate()


async def test_every_route_is_described(application: Application) -> None:
    described = (await application.client.get("/api/v1/openapi.json")).json()["paths"]
    missing = [
        f"{method} {route.path_format}"
        for route in application.app.routes
        for method in sorted(getattr(route, "methods", set()) - {"OPTIONS", "HEAD"})
        if route.path_format.startswith(API)
        and not route.path_format.startswith("/api/v1/openapi")
        and route.path_format not in FRAMEWORKS_OWN
        and method.lower() not in described.get(route.path_format, {})
    ]
    assert missing == []


async def test_both_documents_know_the_same_operations(application: Application) -> None:
    operations: list[set[str]] = []
    for path in ("/api/v1/openapi.json", "/api/v1/openapi-3.0.json"):
        paths = (await application.client.get(path)).json()["paths"]
        operations.append({o["operationId"] for item in paths.values() for o in item.values()})
    assert operations[0] == operations[1]
    assert len(operations[0]) > 30


def test_what_may_be_null_stays_so_in_3_0() -> None:
    schemas = {
        "flag": {"type": ["string", "null"]},
        "choice": {"oneOf": [{"type": "integer", "exclusiveMinimum": 3}, {"type": "null"}]},
        "reference": {"anyOf": [{"$ref": "#/components/schemas/flag"}, {"type": "null"}]},
        "several": {"type": ["string", "integer"], "examples": ["a", 1]},
        "one": {"const": "a"},
        "free": {"type": "object", "required": []},
    }
    old = to_30({"openapi": "3.1.0", "info": {"title": "t", "version": "1"}, "components": {"schemas": schemas}})
    assert old["openapi"] == "3.0.3"
    assert old["components"]["schemas"] == {
        "flag": {"type": "string", "nullable": True},
        "choice": {"type": "integer", "minimum": 3, "exclusiveMinimum": True, "nullable": True},
        "reference": {"allOf": [{"$ref": "#/components/schemas/flag"}], "nullable": True},
        "several": {"anyOf": [{"type": "string"}, {"type": "integer"}], "nullable": False, "example": "a"},
        "one": {"enum": ["a"]},
        "free": {"type": "object"},
    }


async def test_the_page_over_it_asks_nothing_of_other_hosts(application: Application) -> None:
    if not (STATIC / "docs" / "index.html").is_file():
        pytest.skip("the pages are not built (./run build)")
    page = await application.client.get("/docs")
    assert page.status_code == 200
    assert "default-src 'none'" in page.headers["content-security-policy"]
    named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert named
    for address in named:
        assert (await application.client.get(address)).status_code == 200, address
