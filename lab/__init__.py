"""A data centre in a box: real libvirtd, QEMU and IPMI controllers on one Linux machine.

It does not know what it is testing: it imports `domain` alone, and offers faults, not verdicts.
Start reading at `lab.lab`.
"""
