"""Which models there are vectors of."""

from typing import Final

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from chatserver.assistant.embedding.schemas import Known

_NOTE: Final = text("""
with made as (
  insert into embedding_model (name, dimension) values (:name, :dimension)
  on conflict (name, dimension) do nothing returning id)
select id from made
union all select id from embedding_model where name = :name and dimension = :dimension limit 1
""")
_FIND: Final = text("select id, name, dimension from embedding_model where id = :id")


class EmbeddingModels:
    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def note(self, name: str, dimension: int) -> Known:
        """Give a model's number; a new one gets the next."""
        found = None
        while found is None:
            # None: another transaction has made the row since this statement began.
            found = (
                await self._session.execute(_NOTE, {"name": name, "dimension": dimension})
            ).scalar_one_or_none()
        return Known(found, name, dimension)

    async def find(self, model_id: int) -> Known | None:
        found = (await self._session.execute(_FIND, {"id": model_id})).one_or_none()
        return None if found is None else Known(*found)
