"""E2LLM itself: text encoder, adapter, decoder, and how they are loaded and saved."""
