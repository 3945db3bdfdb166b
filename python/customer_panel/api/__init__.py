"""The HTTP API.

`app` puts it together and `state` is what its parts share. A request passes `middleware`, then
`guard`, then its handler: in `customers`, `imports`, `progress`, `system` (health and metrics) or
`openapi` (the documentation). `http` is what all of them use.
"""
