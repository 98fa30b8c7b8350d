"""A re-ranking endpoint as Cohere, Jina, vLLM and others shape it: `POST {base_url}/rerank`.

The address is the operator's own and may be private. Nothing here retries: a search can't wait.
"""

import math
from collections.abc import Sequence
from typing import Final

import orjson

from chatserver.infra.addresses import AddressRefusedError, Reach
from chatserver.infra.http_client import GuardedClient, OutboundError
from chatserver.kernel.errors import UnavailableError

TOTAL_S: Final = 2.5
CONNECT_S: Final = 1.0
# Less than servers keep a silent connection.
KEPT_S: Final = 4.0
LARGEST_ANSWER: Final = 1 << 20
OK: Final = 200


class Reranker:
    def __init__(self, *, base_url: str, model: str, api_key: str) -> None:
        self._url = base_url.rstrip("/") + "/rerank"
        self._model = model
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"
        self._client = GuardedClient(
            Reach(private=True), total_s=TOTAL_S, connect_s=CONNECT_S, kept_s=KEPT_S
        )

    async def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        """Tell how much each text says about a question, by numbers that compare with each other.

        Raises:
            UnavailableError: it can't be told now.
        """
        asked = {
            "model": self._model,
            "query": query,
            "documents": list(texts),
            "top_n": len(texts),
            "return_documents": False,
        }
        try:
            reply = await self._client.fetch(
                "POST",
                self._url,
                headers=self._headers,
                body=orjson.dumps(asked),
                max_body=LARGEST_ANSWER,
            )
            if reply.status != OK:
                raise UnavailableError(f"The re-ranking endpoint answers {reply.status}.")
            found = {
                int(each["index"]): float(each["relevance_score"])
                for each in orjson.loads(reply.body)["results"]
            }
            scores = [found[place] for place in range(len(texts))]
        except (OutboundError, AddressRefusedError) as error:
            raise UnavailableError(str(error)) from error
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise UnavailableError("The re-ranking endpoint's answer is none.") from error
        if not all(math.isfinite(each) for each in scores):
            raise UnavailableError("The re-ranking endpoint gives scores that are no numbers.")
        return scores

    async def close(self) -> None:
        await self._client.close()
