"""The virtual data centre: hosts, guests, controllers, networks and storage, as the ports see them.

`centre.DataCentre` is the truth. `hypervisor.VirtualHypervisor` and `power.VirtualPower` implement
the ports of the activities, each as seen from one machine of the engine.
"""
