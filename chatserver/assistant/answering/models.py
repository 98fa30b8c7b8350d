"""What was learnt about providers of language models."""

from datetime import datetime

from sqlmodel import Field, SQLModel

from chatserver.kernel.tables import time_column


class ContinueWay(SQLModel, table=True):
    """How an endpoint's model goes on with a text that broke off: found by trying, once for all.

    `endpoint` is host, port and path. The server's own: it belongs to no client.
    """

    __tablename__ = "continue_way"

    endpoint: str = Field(max_length=256, primary_key=True)
    model: str = Field(max_length=128, primary_key=True)
    mode: str = Field(max_length=16)
    learnt_at: datetime = Field(default=None, sa_column=time_column(default_now=True))
