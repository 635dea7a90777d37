"""The bundled upstream: a token endpoint and an OpenAI API that serves one request at a time per account."""
