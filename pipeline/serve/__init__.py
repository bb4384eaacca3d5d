"""The control API and the dashboard: streams come and go, are watched and steered over HTTP, while others run on.

FastAPI and uvicorn are the extra `serve`; nothing of them is imported before `roadlens serve` is called.
"""

API = "/api/v1"
"""Where the API begins; the dashboard's pages are beside it."""
