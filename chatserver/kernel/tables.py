"""Column shapes that every table shares."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Column, DateTime, MetaData, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.dialects.postgresql import UUID as PG_UUID
from sqlmodel import SQLModel

# Rows come from the database and are never validated: that would be built for nobody.
SQLModel.model_config["defer_build"] = True
# Constraint names are part of the migrations: let SQLAlchemy give the same ones everywhere.
SQLModel.metadata.naming_convention = {
    "ix": "ix_%(column_0_N_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
METADATA: MetaData = SQLModel.metadata


def uuid_column(*, primary_key: bool = False, nullable: bool = False) -> Column[UUID]:
    return Column(PG_UUID(as_uuid=True), primary_key=primary_key, nullable=nullable)


def time_column(*, nullable: bool = False, default_now: bool = False) -> Column[datetime]:
    """Give a column for a moment; PostgreSQL's clock fills it in where `default_now` is set."""
    return Column(
        DateTime(timezone=True),
        nullable=nullable,
        server_default=func.clock_timestamp() if default_now else None,
    )


def json_column(default: str | None = "{}", *, nullable: bool = False) -> Column[Any]:
    # None is no value, not the JSON value null.
    return Column(JSONB(none_as_null=True), nullable=nullable, server_default=default)
