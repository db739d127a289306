"""Temporal in virtual time: runs the real workflow and activity classes, nothing else.

`server` is what a Temporal server keeps and does, `worker` what a worker process does with it,
`run` one workflow execution, `instance` its code and its replays, `steps` the life of one activity.
It supports what our workflows use; whatever else one asks for is an `Unsupported` error.
"""
