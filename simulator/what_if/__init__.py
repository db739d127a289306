"""What if a host died now? A live engine's inventory, put on a stage, with the loss played out.

`inventory` is what is exported, `play` what happens with it, `answer` what is told.
"""
