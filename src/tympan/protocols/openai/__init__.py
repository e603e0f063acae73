"""OpenAI's Realtime and file transcription APIs, and vLLM's variant."""
