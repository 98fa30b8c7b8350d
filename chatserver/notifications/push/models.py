"""By what key push services know this server."""

from datetime import datetime
from typing import Final

from sqlalchemy import Column, LargeBinary, String
from sqlmodel import Field, SQLModel

from chatserver.kernel.tables import time_column

WEB_PUSH: Final = "web_push"


class ServerKey(SQLModel, table=True):
    """A key pair of the whole server, made once; its private half is sealed.

    Browsers subscribe to the public half: with another one every subscription would be dead.
    """

    __tablename__ = "server_key"

    name: str = Field(sa_column=Column(String(32), primary_key=True))
    sealed: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
    created_at: datetime = Field(default=None, sa_column=time_column(default_now=True))


def place_of_key(name: str) -> str:
    """Say what a sealed key is bound to."""
    return f"server_key:{name}"
