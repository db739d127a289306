"""Faults as data, what each does to a stage, and plans of them drawn from a seed.

`plan`    a fault and a plan: frozen values, readable and as JSON
`menu`    the table from a kind to what it does and how it heals
`draw`    plans from seeds
`troubles` brings a plan's faults onto a stage, in time or behind an event
"""
