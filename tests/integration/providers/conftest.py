from tests.support.talking import master, second, talk

__all__ = ["master", "second", "talk"]
