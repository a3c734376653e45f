"""One small file per experiment; each has `experiment()` and says what it costs and reaches."""

from mbt_lite.configs import world

__all__ = ["world"]
