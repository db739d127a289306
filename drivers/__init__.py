"""The outside world: libvirt, fence agents and sealed secrets, each behind a port of the steps."""
