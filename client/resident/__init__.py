"""The worker process that keeps running between messages, and the connection to it. `connection` and `frames` import no
torch; `worker` imports `client.site`.
"""
