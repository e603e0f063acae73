"""OpenAI's realtime transcription, with vLLM's dialect of it, and the responses of OpenAI's file API."""
