"""The bundled upstream: a token endpoint and an OpenAI API with one request per account, for demo, tests and bench."""
