"""The documents as the server serves them."""

from openapi_spec_validator import validate

from tests.support.rest import running


async def test_both_are_served_to_everyone_and_kept_until_they_change() -> None:
    async with running() as door:
        for path, member in (("/openapi.json", "openapi"), ("/asyncapi.json", "asyncapi")):
            status, document, response = await door.ask("GET", path, None)
            assert status == 200
            assert member in document
            assert response.headers["Cache-Control"] == "no-cache"
            tag = {"If-None-Match": response.headers["ETag"]}
            assert (await door.ask("GET", path, None, headers=tag))[0] == 304
            assert (await door.ask("HEAD", path, None))[0] == 200


async def test_what_is_served_is_valid() -> None:
    async with running() as door:
        _, document, _ = await door.ask("GET", "/openapi.json", None)
    validate(document)
