"""The stores that the trainer's tests use."""

from tests.pefts.conftest import store, validation_store

__all__ = ["store", "validation_store"]
