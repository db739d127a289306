"""A fleet without hardware: the virtual data centre behind the real engine, in real time.

`server` holds the world in a process of its own, `drivers` reach it from the engine's processes,
`wire` is what they say to each other, `spec` what a person asks for, `saved` what outlives a stop.
"""
