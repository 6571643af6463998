"""The contract for machines: JSON Schemas of the messages, and an AsyncAPI 3 document of the topics.

Both are committed in `docs/contracts`, by `python -m ashi.contracts.schemas docs/contracts`; a test compares. What
fields a message has is said by its struct alone, a topic's settings by `topics`, rights by `access`; this package adds
what they mean. Nothing that runs needs it.
"""

from ashi.contracts.schemas.asyncapi import as_text, asyncapi_document
from ashi.contracts.schemas.json_schema import json_schema
from ashi.contracts.schemas.messages import MESSAGES, MessageSpec

__all__ = ["MESSAGES", "MessageSpec", "asyncapi_document", "documents", "json_schema"]


def documents() -> dict[str, str]:
    """The text of each file of `docs/contracts`, by its name."""
    schemas = {f"{message.schema}.json": as_text(json_schema(message)) for message in MESSAGES}
    return {"asyncapi.json": as_text(asyncapi_document()), **schemas}
