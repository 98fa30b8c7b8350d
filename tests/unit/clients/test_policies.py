import re
from itertools import islice

import pytest

from chatserver.clients.policies import slug_candidates
from chatserver.clients.schemas import SLUG


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("demo", "demo"),
        ("Acme & Söhne GmbH", "acme-sohne-gmbh"),
        ("  --A--  ", "a"),
        ("日本", "client"),
        ("x" * 300, "x" * 48),
    ],
)
def test_a_name_gives_a_readable_slug(name: str, slug: str) -> None:
    assert next(slug_candidates(name)) == slug


@pytest.mark.parametrize("name", ["demo", "日本", "x" * 300, "-", "a" * 47 + " b"])
def test_there_are_always_others_and_all_are_slugs(name: str) -> None:
    found = list(islice(slug_candidates(name), 30))
    assert len(set(found)) == 30
    assert all(re.fullmatch(SLUG, slug) for slug in found)
