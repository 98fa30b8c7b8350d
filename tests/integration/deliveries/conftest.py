from tests.integration.webhooks.endpoints.conftest import master, post, posts

__all__ = ["master", "post", "posts"]
