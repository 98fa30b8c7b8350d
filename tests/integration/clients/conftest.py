from tests.support.keys import house

__all__ = ["house"]
