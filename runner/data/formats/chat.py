"""Conversations as OpenAI, Microsoft Foundry and TRL take them: `messages` with role and content.

Source: https://platform.openai.com/docs/guides/supervised-fine-tuning
"""

from runner.data.formats import Format
from runner.data.kinds.conversation import Conversation


def to_row(conversation: Conversation) -> Conversation:
    """Return the same without keys that are not read: this is our own form."""
    return Conversation(conversation.messages, conversation.tools, conversation.parallel_tool_calls)


FORMAT = Format("chat", "conversation", Conversation, to_row)
