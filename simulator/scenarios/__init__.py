"""Neutral HA scenarios, played against the real engine in virtual time.

`format`    what a file says; what it says beyond that is named, never skipped in silence
`world`     hosts, VMs and rules as this engine has them, and what of them it has not
`timeline`  each operation of the format as deeds of a person or faults of the world
`run`       one scenario from its cold start until nothing is under way
`verdict`   four levels, from what happened and what the peer did
`report`    results for people and for programs
"""
