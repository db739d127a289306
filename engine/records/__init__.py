"""The rows behind the steps: each port of `activities` as transactions on the store."""
