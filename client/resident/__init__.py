"""The worker process that stays between messages, and the way to it. `connection` and `frames` import no torch;
`worker` imports `client.site`.
"""
