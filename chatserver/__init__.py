"""A self-hosted real-time messaging server."""
