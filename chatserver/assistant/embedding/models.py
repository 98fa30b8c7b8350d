"""The embedding models whose vectors are stored."""

from datetime import datetime

from sqlalchemy import Column, Identity, SmallInteger, UniqueConstraint
from sqlmodel import Field, SQLModel

from chatserver.kernel.tables import time_column


class EmbeddingModel(SQLModel, table=True):
    """A model and the dimension that it was found to have. Vectors of two are never compared."""

    __tablename__ = "embedding_model"
    __table_args__ = (UniqueConstraint("name", "dimension"),)

    id: int = Field(
        default=None, sa_column=Column(SmallInteger, Identity(always=True), primary_key=True)
    )
    name: str = Field(max_length=128)
    dimension: int
    created_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
